package sample

import (
	"encoding/json"
	"fmt"
	"time"
)

// row is what the database knows of a conversation and its contact, as the
// transaction at hand has left it.
type row struct {
	at          time.Time
	turn        int64 // of the conversation
	contactTurn int64
	status      string
	assignee    int64 // 0: nobody
	lastMessage int64
}

// chatEvent is a row for the outbox.
type chatEvent struct {
	account int64
	name    string
	payload []byte
}

// The payloads have Chatwoot's members in Chatwoot's order, but for "event":
// the relay adds it. "turn", among the custom attributes, counts what happened
// to the conversation or contact, so that a receiver can check the order.

type accountJSON struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

type turnJSON struct {
	Turn int64 `json:"turn"`
}

type contactInboxJSON struct {
	ID           int64  `json:"id"`
	ContactID    int64  `json:"contact_id"`
	InboxID      int64  `json:"inbox_id"`
	SourceID     string `json:"source_id"`
	HMACVerified bool   `json:"hmac_verified"`
}

type contactJSON struct {
	Account              *accountJSON `json:"account,omitempty"`
	AdditionalAttributes struct{}     `json:"additional_attributes"`
	Avatar               *string      `json:"avatar,omitempty"`
	CustomAttributes     turnJSON     `json:"custom_attributes"`
	Email                *string      `json:"email"`
	ID                   int64        `json:"id"`
	Identifier           *string      `json:"identifier"`
	Name                 string       `json:"name"`
	PhoneNumber          *string      `json:"phone_number"`
	Thumbnail            string       `json:"thumbnail"`
	Blocked              bool         `json:"blocked"`
	Type                 string       `json:"type,omitempty"`
}

type userJSON struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email,omitempty"`
	Type  string `json:"type"`
}

type metaJSON struct {
	Sender       contactJSON `json:"sender"`
	Assignee     *userJSON   `json:"assignee"`
	AssigneeType *string     `json:"assignee_type"`
	Team         *struct{}   `json:"team"`
	HMACVerified bool        `json:"hmac_verified"`
}

type conversationJSON struct {
	AdditionalAttributes struct{}         `json:"additional_attributes"`
	CanReply             bool             `json:"can_reply"`
	Channel              string           `json:"channel"`
	ContactInbox         contactInboxJSON `json:"contact_inbox"`
	ID                   int64            `json:"id"`
	InboxID              int64            `json:"inbox_id"`
	Messages             []nestedJSON     `json:"messages"`
	Labels               []string         `json:"labels"`
	Meta                 metaJSON         `json:"meta"`
	Status               string           `json:"status"`
	CustomAttributes     turnJSON         `json:"custom_attributes"`
	SnoozedUntil         *string          `json:"snoozed_until"`
	UnreadCount          int              `json:"unread_count"`
	FirstReplyCreatedAt  *string          `json:"first_reply_created_at"`
	Priority             *string          `json:"priority"`
	WaitingSince         int64            `json:"waiting_since"`
	LastActivityAt       int64            `json:"last_activity_at"`
	Timestamp            int64            `json:"timestamp"`
	UpdatedAt            float64          `json:"updated_at"`
	Account              accountJSON      `json:"account"`
}

// nestedJSON is the latest message within a conversation, where Chatwoot
// spells type and times otherwise than at the top.
type nestedJSON struct {
	ID             int64  `json:"id"`
	Content        string `json:"content"`
	AccountID      int64  `json:"account_id"`
	InboxID        int64  `json:"inbox_id"`
	ConversationID int64  `json:"conversation_id"`
	MessageType    int    `json:"message_type"`
	CreatedAt      int64  `json:"created_at"`
	UpdatedAt      string `json:"updated_at"`
	Private        bool   `json:"private"`
	Status         string `json:"status"`
	ContentType    string `json:"content_type"`
	SenderType     string `json:"sender_type"`
	SenderID       int64  `json:"sender_id"`
}

type messageJSON struct {
	Account              accountJSON      `json:"account"`
	AdditionalAttributes struct{}         `json:"additional_attributes"`
	ContentAttributes    struct{}         `json:"content_attributes"`
	ContentType          string           `json:"content_type"`
	Content              string           `json:"content"`
	Conversation         conversationJSON `json:"conversation"`
	CreatedAt            string           `json:"created_at"`
	ID                   int64            `json:"id"`
	Inbox                accountJSON      `json:"inbox"`
	MessageType          string           `json:"message_type"`
	Private              bool             `json:"private"`
	Sender               any              `json:"sender"`
	SourceID             *string          `json:"source_id"`
}

type typingJSON struct {
	User         userJSON         `json:"user"`
	Conversation conversationJSON `json:"conversation"`
	IsPrivate    bool             `json:"is_private"`
}

// changedConversationJSON is a conversation with what changed of it; Chatwoot
// sends null with conversation_status_changed.
type changedConversationJSON struct {
	conversationJSON
	ChangedAttributes []map[string]changeJSON `json:"changed_attributes"`
}

type changedContactJSON struct {
	contactJSON
	ChangedAttributes []map[string]changeJSON `json:"changed_attributes"`
}

type changeJSON struct {
	PreviousValue any `json:"previous_value"`
	CurrentValue  any `json:"current_value"`
}

// chatEvents are what the chat system says of an action.
func (a action) chatEvents(r row) ([]chatEvent, error) {
	w := &writer{account: a.conversation.account.ID}
	switch a.kind {
	case opened:
		w.add("contact_created", a.contactPayload(r))
		w.add("conversation_created", a.conversationPayload(r))
	case asked:
		w.add("message_created", a.messagePayload(r, "incoming"))
	case answered, noted:
		w.add("message_created", a.messagePayload(r, "outgoing"))
	case seen:
		a.text = "…"
		w.add("message_updated", a.messagePayload(r, "outgoing"))
	case typing:
		w.add("conversation_typing_on", typingJSON{a.agent.payload(true), a.conversationPayload(r), false})
	case stopped:
		w.add("conversation_typing_off", typingJSON{a.agent.payload(true), a.conversationPayload(r), false})
	case assigned:
		w.add("conversation_updated", changedConversationJSON{a.conversationPayload(r), []map[string]changeJSON{{"assignee_id": {nil, a.agent.id}}}})
	case identified:
		w.add("contact_updated", changedContactJSON{a.contactPayload(r), []map[string]changeJSON{{"email": {nil, a.conversation.contact.email}}}})
	case resolved:
		first := r
		first.turn--
		w.add("conversation_status_changed", changedConversationJSON{a.conversationPayload(first), nil})
		w.add("conversation_updated", changedConversationJSON{a.conversationPayload(r), []map[string]changeJSON{{"status": {"open", "resolved"}}}})
	}
	return w.events, w.err
}

// writer encodes payloads until one fails.
type writer struct {
	account int64
	events  []chatEvent
	err     error
}

func (w *writer) add(name string, payload any) {
	encoded, err := json.Marshal(payload)
	if err != nil && w.err == nil {
		w.err = fmt.Errorf("encode %s: %w", name, err)
	}
	w.events = append(w.events, chatEvent{w.account, name, encoded})
}

const isoMillis = "2006-01-02T15:04:05.000Z"

func (a action) messagePayload(r row, direction string) messageJSON {
	c, account := a.conversation, a.conversation.account
	m := messageJSON{
		Account: accountJSON{account.ID, account.Name}, ContentType: "text", Content: a.text,
		Conversation: a.conversationPayload(r), CreatedAt: r.at.Format(isoMillis), ID: r.lastMessage,
		Inbox: accountJSON{account.InboxID, account.Inbox}, MessageType: direction, Private: a.kind == noted,
	}
	nested := nestedJSON{
		ID: r.lastMessage, Content: a.text, AccountID: account.ID, InboxID: account.InboxID, ConversationID: c.id,
		CreatedAt: r.at.Unix(), UpdatedAt: r.at.Format(isoMillis), Private: m.Private, Status: "sent", ContentType: "text",
	}
	if direction == "incoming" {
		m.Sender = a.contactPayload(r)
		nested.SenderType, nested.SenderID = "Contact", c.contact.id
	} else {
		m.Sender = a.agent.payload(true)
		nested.MessageType, nested.SenderType, nested.SenderID = 1, "User", a.agent.id
	}
	m.Conversation.Messages = []nestedJSON{nested}
	return m
}

func (a action) conversationPayload(r row) conversationJSON {
	c, account := a.conversation, a.conversation.account
	p := conversationJSON{
		CanReply: true, Channel: "Channel::WebWidget",
		ContactInbox: contactInboxJSON{ID: c.contact.id, ContactID: c.contact.id, InboxID: account.InboxID, SourceID: c.contact.sourceID},
		ID:           c.id, InboxID: account.InboxID, Messages: []nestedJSON{}, Labels: []string{},
		Status: r.status, CustomAttributes: turnJSON{r.turn},
		LastActivityAt: r.at.Unix(), Timestamp: r.at.Unix(), UpdatedAt: float64(r.at.UnixMicro()) / 1e6,
		Account: accountJSON{account.ID, account.Name},
	}
	p.Meta.Sender = a.contactPayload(r)
	p.Meta.Sender.Account, p.Meta.Sender.Avatar, p.Meta.Sender.Type = nil, nil, "contact"
	for _, agent := range account.agents {
		if agent.id == r.assignee {
			user, kind := agent.payload(false), "User"
			p.Meta.Assignee, p.Meta.AssigneeType = &user, &kind
		}
	}
	return p
}

func (a action) contactPayload(r row) contactJSON {
	c, account := a.conversation.contact, a.conversation.account
	avatar := ""
	p := contactJSON{
		Account: &accountJSON{account.ID, account.Name}, Avatar: &avatar, CustomAttributes: turnJSON{r.contactTurn}, ID: c.id, Name: c.name,
	}
	if a.kind == identified {
		p.Email = &c.email
	}
	return p
}

func (a agent) payload(email bool) userJSON {
	u := userJSON{ID: a.id, Name: a.name, Type: "user"}
	if email {
		u.Email = a.email
	}
	return u
}
