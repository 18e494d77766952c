package domain

import (
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// contactDepth is how deep a payload is searched. Chatwoot's have six levels;
// without a bound the cost would grow with the square of the depth.
const contactDepth = 64

// TellsOfContact reports whether a chat event's payload tells of a contact: one
// of contact_* is about it, or anywhere in it stands the contact's id, as
// contact_id, as the id of an object that is called contact or whose type is
// contact, or as sender_id where sender_type is Contact (chatwoot v4.16).
func TellsOfContact(event string, payload []byte, contact int64) bool {
	root := gjson.ParseBytes(payload)
	wanted := strconv.FormatInt(contact, 10)
	about := strings.HasPrefix(event, "contact_")
	return tellsOf(root, about, wanted, 0)
}

// tellsOf searches a value; contact says that it is a contact by its place.
func tellsOf(value gjson.Result, contact bool, wanted string, depth int) bool {
	if depth > contactDepth || !value.IsObject() && !value.IsArray() {
		return false
	}
	var id, sender bool
	found, senderIsContact := false, false
	value.ForEach(func(key, member gjson.Result) bool {
		name := ""
		if value.IsObject() {
			name = key.String()
		}
		is := func() bool { return idText([]byte(member.Raw)) == wanted }
		switch name {
		case "id":
			id = id || is()
		case "contact_id":
			found = found || is()
		case "sender_id":
			sender = sender || is()
		case "type":
			contact = contact || strings.EqualFold(member.String(), "contact")
		case "sender_type":
			senderIsContact = senderIsContact || strings.EqualFold(member.String(), "contact")
		}
		found = found || tellsOf(member, name == "contact", wanted, depth+1)
		return !found
	})
	return found || contact && id || sender && senderIsContact
}
