package sample

// Account is a made-up account of the chat system.
type Account struct {
	ID   int64
	Name string
	// Slug stands for the account in the receiver's paths.
	Slug    string
	InboxID int64
	Inbox   string
	agents  []agent
}

type agent struct {
	id    int64
	name  string
	email string
}

// Accounts are the three accounts of the sample traffic.
func Accounts() []Account {
	return []Account{
		{1, "Meadow Tea Co", "meadow", 11, "Website chat", []agent{
			{101, "Asha Rao", "asha@meadow.example"}, {102, "Tom Becker", "tom@meadow.example"},
		}},
		{2, "Harbour Bikes", "harbour", 21, "WhatsApp", []agent{
			{201, "Inês Duarte", "ines@harbour.example"}, {202, "Karl O'Neill", "karl@harbour.example"},
		}},
		{3, "Nordlicht Optik", "nordlicht", 31, "Service <post@nordlicht.example>", []agent{
			{301, "Jördis Holm", "joerdis@nordlicht.example"}, {302, "Paweł Zieliński", "pawel@nordlicht.example"},
		}},
	}
}

var firstNames = []string{"Lena", "Mateo", "Yuki", "Zoë", "Amir", "Chidi", "Freya", "Søren", "Priya", "Łukasz", "Ana", "Noor"}

var lastNames = []string{"Voss", "García", "Tanaka", "Müller", "Haddad", "Okafor", "Lindqvist", "O'Brien", "Nair", "Nowak"}

var questions = []string{
	"Hi, is anyone there?",
	"Where is my order #A-1180?",
	"The tracking page says \"delivered\", but nothing came 😕",
	"Könnt ihr mir eine Rechnung schicken?",
	"Do you ship to Norway & Iceland?",
	"¿Puedo cambiar la dirección de envío?",
	"It broke after two days.\nPhotos attached.",
	"これは在庫がありますか？",
	"Thanks, that helped!",
	"I would like my money back, please.",
	"Is the <M> the same as a European 40?",
	"ok 👍",
}

var answers = []string{
	"Hello! Let me look that up for you.",
	"It left our warehouse this morning and should reach you tomorrow.",
	"I am sorry about that. Could you send me your order number?",
	"Die Rechnung ist unterwegs – sie sollte in ein paar Minuten da sein.",
	"Yes, we do: 5–7 days, no extra cost above 40 €.",
	"Done. Is there anything else?",
	"I have asked a colleague from the workshop to have a look.",
	"The refund takes 3 to 5 working days.",
}

var notes = []string{
	"Second complaint this month, be generous.",
	"Asked logistics, waiting for their answer.",
	"VIP – see CRM.",
}
