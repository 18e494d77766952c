# Runs the README's check of signatures, whose file is the first argument, on a
# request that is given on stdin as JSON: secret, headers, body.
require "base64"
require "json"

load File.expand_path(ARGV.fetch(0))

request = JSON.parse($stdin.read)
secret, headers, body = request.values_at("secret", "headers", "body")
body = Base64.strict_decode64(body)

abort "a genuine request is refused" unless genuine?(secret, headers, body)
abort "a body that was changed is accepted" if genuine?(secret, headers, body + " ")
abort "another secret is accepted" if genuine?("another-secret", headers, body)
abort "a request of an hour ago is accepted" if genuine?(secret, headers, body, Time.now + 3600)
abort "a request without a signature is accepted" if genuine?(secret, headers.except("webhook-signature"), body)
abort "a request without any header is accepted" if genuine?(secret, {}, body)
