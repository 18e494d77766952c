package sample

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// Counts are the book of one webhook.
type Counts struct {
	Path string
	// Requests came; of them, Verified had good signatures and Forged not.
	Requests, Verified, Forged int
	// Forgery is what was wrong with the last of them.
	Forgery string
	// Succeeded were answered with 2xx, Failed otherwise or with a reset,
	// Abandoned by the sender before their answer. The rest is InFlight.
	Succeeded, Failed, Abandoned, InFlight int
	// Notifications are the different webhook-ids.
	Notifications int
	// Repeats are the requests with a webhook-id that came before.
	Repeats Repeats
	// ToldUnknown are the requests that say that the outcome of the attempt
	// before is unknown. Not each is a repeat: that attempt may not have come.
	ToldUnknown int
	// Altered are repeats whose body is not that of the first, byte for byte.
	Altered int
	// OutOfOrder are the requests that came behind a later one of their
	// conversation or contact, by the payload's turn. Replays do not count.
	OutOfOrder int
}

// Repeats are split by what their headers say.
type Repeats struct {
	AfterUnknown, AfterFailed int // Outrider-Previous-Outcome
	Replayed                  int // Outrider-Replay
	Untold                    int // neither: nothing explains it
}

// Total is their sum.
func (r Repeats) Total() int { return r.AfterUnknown + r.AfterFailed + r.Replayed + r.Untold }

// Arrival is the first request with a webhook-id.
type Arrival struct {
	Path         string
	Notification string
	At           time.Time
}

// Post is one request.
type Post struct {
	Path         string
	Notification string
	Delivery     string
	Attempt      int
	// Previous is what the header said of the attempt before.
	Previous string
	At       time.Time
}

// book is what a receiver remembers. Its owner has the lock.
type book struct {
	remember int
	pages    map[string]*page
	known    map[string]notification
	recent   []string // the known ones, the oldest first
	posts    []Post
}

// page is the book of one webhook.
type page struct {
	counts Counts
	turns  map[string]int64 // the highest one of each conversation or contact
}

type notification struct {
	path string
	at   time.Time
	body [sha256.Size]byte
}

func newBook(remember int) book {
	return book{remember: remember, pages: map[string]*page{}, known: map[string]notification{}}
}

func (b *book) of(path string) *page {
	p := b.pages[path]
	if p == nil {
		p = &page{counts: Counts{Path: path}, turns: map[string]int64{}}
		b.pages[path] = p
	}
	return p
}

func (b *book) arrived(path string, at time.Time, header http.Header, body []byte, forged error) {
	p := b.of(path)
	p.counts.Requests++
	p.counts.InFlight++
	if forged != nil {
		p.counts.Forged++
		p.counts.Forgery = forged.Error()
	} else {
		p.counts.Verified++
	}
	id, previous, replay := header.Get("webhook-id"), header.Get("Outrider-Previous-Outcome"), header.Get("Outrider-Replay")
	attempt, _ := strconv.Atoi(header.Get("Outrider-Attempt")) // 0 is no attempt that anybody recorded
	b.post(Post{path, id, header.Get("Outrider-Delivery"), attempt, previous, at})
	if previous == "unknown" {
		p.counts.ToldUnknown++
	}
	sum := sha256.Sum256(body)
	if first, repeated := b.known[id]; repeated {
		p.repeated(previous, replay)
		if first.body != sum {
			p.counts.Altered++
		}
	} else {
		p.counts.Notifications++
		b.learn(id, notification{path, at, sum})
	}
	if len(p.turns) > b.remember {
		clear(p.turns)
	}
	if replay == "" {
		p.ordered(body)
	}
}

func (b *book) post(post Post) {
	b.posts = append(b.posts, post)
	if len(b.posts) > 2*b.remember { // seldom, so that it costs little
		b.posts = append(b.posts[:0], b.posts[len(b.posts)-b.remember:]...)
	}
}

func (b *book) learn(id string, n notification) {
	b.known[id] = n
	b.recent = append(b.recent, id)
	if len(b.recent) > 2*b.remember {
		old := len(b.recent) - b.remember
		for _, id := range b.recent[:old] {
			delete(b.known, id)
		}
		b.recent = append(b.recent[:0], b.recent[old:]...)
	}
}

func (p *page) repeated(previous, replay string) {
	switch {
	case replay != "":
		p.counts.Repeats.Replayed++
	case previous == "unknown":
		p.counts.Repeats.AfterUnknown++
	case previous == "failed":
		p.counts.Repeats.AfterFailed++
	default:
		p.counts.Repeats.Untold++
	}
}

// ordered compares the payload's turn with the highest one seen of its
// conversation or contact. An equal one is a repeat.
func (p *page) ordered(body []byte) {
	key, turn := placeOf(body)
	if key == "" {
		return
	}
	if turn < p.turns[key] {
		p.counts.OutOfOrder++
		return
	}
	p.turns[key] = turn
}

// placeOf reads what a payload is about, and its turn; "" where it has none.
func placeOf(body []byte) (key string, turn int64) {
	event := gjson.GetBytes(body, "event").String()
	var id, at gjson.Result
	switch {
	case strings.HasPrefix(event, "message_"), strings.HasPrefix(event, "conversation_typing_"):
		id, at = gjson.GetBytes(body, "conversation.id"), gjson.GetBytes(body, "conversation.custom_attributes.turn")
		key = "conversation:"
	case strings.HasPrefix(event, "conversation_"):
		id, at = gjson.GetBytes(body, "id"), gjson.GetBytes(body, "custom_attributes.turn")
		key = "conversation:"
	case strings.HasPrefix(event, "contact_"):
		id, at = gjson.GetBytes(body, "id"), gjson.GetBytes(body, "custom_attributes.turn")
		key = "contact:"
	}
	if !id.Exists() || at.Type != gjson.Number {
		return "", 0
	}
	return key + id.String(), at.Int()
}

func (b *book) answered(path string, e ending) {
	counts := &b.of(path).counts
	counts.InFlight--
	switch e {
	case succeeded:
		counts.Succeeded++
	case failed:
		counts.Failed++
	case abandoned:
		counts.Abandoned++
	}
}

func (b *book) arrivals() []Arrival {
	all := make([]Arrival, len(b.recent))
	for i, id := range b.recent {
		n := b.known[id]
		all[i] = Arrival{n.path, id, n.at}
	}
	return all
}
