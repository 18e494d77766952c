# Judges the requests on stdin by the check in the file of the first argument.
require "base64"
require "json"

load File.expand_path(ARGV.fetch(0))
check = respond_to?(:from_chatwoot?, true) ? :from_chatwoot? : :genuine?
puts JSON.generate(JSON.parse($stdin.read).map { |r| send(check, r["secret"], r["headers"], Base64.strict_decode64(r["body"])) })
