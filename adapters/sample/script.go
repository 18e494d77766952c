package sample

import (
	"fmt"
	"math/rand/v2"

	"github.com/google/uuid"
)

// kind is something that happens in a chat system.
type kind int

const (
	opened     kind = iota // a visitor begins a conversation
	asked                  // and writes
	answered               // an agent replies
	noted                  // leaves a private note
	seen                   // a message's status changes
	typing                 // an agent begins to type
	stopped                // and stops
	assigned               // a conversation gets its agent
	identified             // a visitor leaves an e-mail address
	resolved               // the conversation ends
)

// weights say how often each kind happens, in the order of the kinds.
var weights = [...]int{opened: 5, asked: 26, answered: 22, noted: 3, seen: 16, typing: 9, stopped: 5, assigned: 5, identified: 4, resolved: 5}

// events is how many chat events it makes.
func (k kind) events() int {
	if k == opened || k == resolved {
		return 2
	}
	return 1
}

// conversation is what does not change of one.
type conversation struct {
	account *Account
	id      int64 // counts within the account
	contact contact
}

type contact struct {
	id       int64
	name     string
	email    string
	sourceID string
}

// action is a kind with its parts: one transaction of the chat system.
type action struct {
	kind         kind
	conversation *conversation
	agent        agent
	text         string
	// rollback: something else in the transaction fails, and it never was.
	rollback bool
}

// rollbackShare of the actions are rolled back.
const rollbackShare = 0.02

// script makes up actions, the same ones for the same seed.
type script struct {
	random   *rand.Rand
	accounts []Account
	most     int               // open conversations of an account
	open     [][]*conversation // of each account
	last     []int64           // conversation id of each account
}

func newScript(seed uint64, accounts []Account, most int) *script {
	return &script{
		random:   rand.New(rand.NewPCG(seed, seed)), //nolint:gosec // made-up chats
		accounts: accounts, most: most, open: make([][]*conversation, len(accounts)), last: make([]int64, len(accounts)),
	}
}

// populate opens half of the conversations: they are older than the script.
func (s *script) populate() []*conversation {
	var all []*conversation
	for i := range s.accounts {
		for len(s.open[i]) < (s.most+1)/2 {
			all = append(all, s.begin(i))
		}
	}
	return all
}

// begin opens a conversation.
func (s *script) begin(account int) *conversation {
	s.last[account]++
	id := s.last[account]
	name := pick(s.random, firstNames) + " " + pick(s.random, lastNames)
	var source uuid.UUID
	for i := range source {
		source[i] = byte(s.random.UintN(256)) //nolint:gosec // fits
	}
	c := &conversation{account: &s.accounts[account], id: id, contact: contact{
		id: 1_000_000*s.accounts[account].ID + id, name: name,
		email:    fmt.Sprintf("visitor-%d@customer.example", id),
		sourceID: source.String(),
	}}
	s.open[account] = append(s.open[account], c)
	return c
}

// next makes up the next action of at most the given number of events.
func (s *script) next(events int) action {
	account := s.random.IntN(len(s.accounts))
	k := s.kind(account, events)
	var c *conversation
	switch open := s.open[account]; k {
	case opened:
		c = s.begin(account)
	case resolved:
		c = open[0] // the oldest
		s.open[account] = open[1:]
	default:
		c = open[s.random.IntN(len(open))]
	}
	a := action{kind: k, conversation: c, agent: pick(s.random, c.account.agents), rollback: s.random.Float64() < rollbackShare}
	switch k {
	case asked:
		a.text = pick(s.random, questions)
	case answered:
		a.text = pick(s.random, answers)
	case noted:
		a.text = pick(s.random, notes)
	default:
	}
	if k == opened || k == resolved {
		a.rollback = false // the script goes on as if it were
	}
	return a
}

func (s *script) kind(account, events int) kind {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	drawn := s.random.IntN(sum)
	k := kind(0)
	for drawn >= weights[k] {
		drawn -= weights[k]
		k++
	}
	open := len(s.open[account])
	if k.events() > events || k == opened && open >= s.most || k == resolved && open <= max(1, s.most/2) {
		return asked
	}
	return k
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }
