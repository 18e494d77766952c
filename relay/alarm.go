package relay

import (
	"container/heap"
	"time"
)

// alarms say when queues are to be looked at again although nothing happens to
// them: a heap by time, in which each queue is once.
type alarms []*queue

// set sets a queue's alarm.
func (a *alarms) set(q *queue, at time.Time) {
	if q.alarm.place == 0 {
		q.alarm.at = at
		heap.Push(a, q)
		return
	}
	if !q.alarm.at.Equal(at) {
		q.alarm.at = at
		heap.Fix(a, q.alarm.place-1)
	}
}

// drop forgets a queue's alarm.
func (a *alarms) drop(q *queue) {
	if q.alarm.place > 0 {
		heap.Remove(a, q.alarm.place-1)
	}
}

// due takes the next queue whose alarm has come, nil where there is none.
func (a *alarms) due(now time.Time) *queue {
	if len(*a) == 0 || (*a)[0].alarm.at.After(now) {
		return nil
	}
	q := (*a)[0]
	a.drop(q)
	return q
}

// until is how long no alarm will come.
func (a *alarms) until(now time.Time) time.Duration {
	if len(*a) == 0 {
		return time.Hour
	}
	return (*a)[0].alarm.at.Sub(now)
}

// alarm is where a queue is among the alarms: place counts from 1, 0 is for
// nowhere.
type alarm struct {
	at    time.Time
	place int
}

// Len implements heap.Interface.
func (a *alarms) Len() int { return len(*a) }

// Less implements heap.Interface.
func (a *alarms) Less(i, j int) bool { return (*a)[i].alarm.at.Before((*a)[j].alarm.at) }

// Swap implements heap.Interface.
func (a *alarms) Swap(i, j int) {
	s := *a
	s[i], s[j] = s[j], s[i]
	s[i].alarm.place, s[j].alarm.place = i+1, j+1
}

// Push implements heap.Interface.
func (a *alarms) Push(x any) {
	q, ok := x.(*queue)
	if !ok {
		return
	}
	*a = append(*a, q)
	q.alarm.place = len(*a)
}

// Pop implements heap.Interface.
func (a *alarms) Pop() any {
	s := *a
	q := s[len(s)-1]
	s[len(s)-1] = nil
	*a = s[:len(s)-1]
	q.alarm.place = 0
	return q
}
