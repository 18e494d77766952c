# Runs the README's Rails example, whose file is the first argument, against
# the database of DATABASE_URL, and fails where it does not do what the README
# says.
require "active_record"
require "pg"

class ApplicationRecord < ActiveRecord::Base
  self.abstract_class = true
end

ApplicationRecord.establish_connection(ENV.fetch("DATABASE_URL"))
load File.expand_path(ARGV.fetch(0))

conversation = Conversation.create!(account_id: 1)
conversation.say("It is kept.")

# The insert is part of the transaction: it goes with it.
Conversation.transaction do
  conversation.say("It is rolled back.")
  raise ActiveRecord::Rollback
end

# And the message goes with the insert: a NULL account is refused by the outbox.
begin
  Message.create!(account_id: nil, conversation: conversation, content: "It cannot be announced.")
  abort "the message was stored although its event was refused"
rescue ActiveRecord::NotNullViolation
  # as it should be
end

contents = Message.where(conversation_id: conversation.id).pluck(:content)
abort "the messages are #{contents}" unless contents == ["It is kept."]
puts conversation.id
