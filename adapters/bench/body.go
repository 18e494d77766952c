package bench

import (
	"bytes"
	"fmt"
	"strings"
)

// Accounts is how many accounts the workloads have, with one webhook each.
const Accounts = 50

// FirstAccount is the number of the first of them. They are far from any that
// a chat system counts up to, so that what a benchmark wrote into a database
// is known by them.
const FirstAccount = 900_000_000_000

// Conversations are spread over the accounts.
const conversations = 5000

// EventName is the event of every row.
const EventName = "message_created"

// bodyBytes is the size of what is POSTed.
const bodyBytes = 1024

// A body begins with the run's number and the event's number within it, at
// places that a receiver finds without parsing JSON.
const (
	runAt, runDigits       = len(`{"run":"`), 4
	numberAt, numberDigits = len(`{"run":"0000","n":"`), 10
	maxRuns                = 10_000
)

// preparedRun is the number of events whose run is not known when they are
// inserted. No other run has it.
const preparedRun = 0

// eventMember is what a relay adds to a payload.
const eventMember = `,"event":"` + EventName + `"`

// filler makes bodies the size that they have.
var filler = strings.Repeat("x", bodyBytes-len(`{"run":"0000","n":"0000000000","conversation":{"id":1234},"content":""}`)-len(eventMember))

// payload is the JSON that a producer inserts as event n of a run.
func payload(run, n int) string {
	return fmt.Sprintf(`{"run":"%04d","n":"%010d","conversation":{"id":%d},"content":%q}`, run, n, n%conversations, filler)
}

// body is what a relay makes of it.
func body(run, n int) []byte {
	text := payload(run, n)
	return []byte(text[:len(text)-1] + eventMember + "}")
}

// parseBody finds an event's number, and the run's as text.
func parseBody(b []byte) (run []byte, n int, ok bool) {
	if len(b) < numberAt+numberDigits || !bytes.HasPrefix(b, []byte(`{"run":"`)) {
		return nil, 0, false
	}
	for _, digit := range b[numberAt : numberAt+numberDigits] {
		if digit < '0' || digit > '9' {
			return nil, 0, false
		}
		n = 10*n + int(digit-'0')
	}
	return b[runAt : runAt+runDigits], n, true
}

// setNumber makes a body that of another event.
func setNumber(b []byte, n int) {
	for i := numberAt + numberDigits - 1; i >= numberAt; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}
