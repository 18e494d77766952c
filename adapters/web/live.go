package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// What live updates may cost.
const (
	// livePoll is the shortest wait between two looks at the database, liveShare
	// how many times as long as a look took the wait is at least: all viewers
	// together take this share of one connection, however many there are.
	livePoll  = time.Second
	liveShare = 4
	// liveSettles is how many looks are taken after something was written: its
	// number is known a moment before it can be seen.
	liveSettles = 3
	// liveBeat is when somebody to whom nothing was sent gets a sign of life, and
	// their session is judged anew.
	liveBeat = 15 * time.Second
	// liveLife is how long a stream lasts; browsers begin another one.
	liveLife = 10 * time.Minute
	// The bounds of viewers, and of different things that they look at.
	liveOfToken = 8
	liveViewers = 500
	liveSubject = 60
	// liveRead bounds a look at one thing.
	liveRead = 5 * time.Second
)

// fragment is a part of a page with its id in it.
type fragment struct{ id, html string }

// subject is something that people look at: what two see at the same address is
// read once for both.
type subject struct {
	// read gives it as it is, from first to last.
	read func(context.Context) ([]fragment, error)
	// every is how long after a look the next one is taken though nothing was
	// written: it may change without an entry in the history. 0 is never.
	every time.Duration
	// rest is how long after a look none is taken, whatever was written.
	rest time.Duration
}

// watched is a subject with those who look at it.
type watched struct {
	subject
	viewers int
	at      time.Time // of the last look
	// now is how it is, changed is closed where that is no longer so.
	now     []fragment
	known   bool
	changed chan struct{}
}

// live keeps what people look at up to date: one look at the database after the
// other, as long as somebody looks.
type live struct {
	commits  func(context.Context) (int64, error)
	stopping <-chan struct{}
	logger   *slog.Logger
	seed     maphash.Seed
	beat     time.Duration

	mu       sync.Mutex
	subjects map[string]*watched
	viewers  map[domain.TokenID]int
	total    int
	running  bool

	told time.Time // the loop's own
}

func newLive(commits func(context.Context) (int64, error), stopping <-chan struct{}, beat time.Duration, logger *slog.Logger) *live {
	return &live{
		commits: commits, stopping: stopping, logger: logger, seed: maphash.MakeSeed(), beat: cmp.Or(beat, liveBeat),
		subjects: map[string]*watched{}, viewers: map[domain.TokenID]int{},
	}
}

var errTooManyViewers = &failure{http.StatusTooManyRequests, "Too many pages are live at once", "Close some of them, or load this one anew by hand."}

// enter lets somebody look at a subject, or says that too many do.
func (l *live) enter(token domain.TokenID, key string, s subject) (*watched, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.subjects[key]
	if l.total >= liveViewers || l.viewers[token] >= liveOfToken || w == nil && len(l.subjects) >= liveSubject {
		return nil, errTooManyViewers
	}
	if w == nil {
		w = &watched{subject: s, changed: make(chan struct{})}
		l.subjects[key] = w
	}
	w.viewers++
	l.viewers[token]++
	l.total++
	if !l.running {
		l.running = true
		go l.run()
	}
	return w, nil
}

func (l *live) leave(token domain.TokenID, key string, w *watched) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.viewers--
	if w.viewers == 0 {
		delete(l.subjects, key)
	}
	l.viewers[token]--
	if l.viewers[token] == 0 {
		delete(l.viewers, token)
	}
	l.total--
}

// run looks until nobody does, or the process stops.
func (l *live) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	mark, settles := int64(-1), 0
	for {
		begun := time.Now()
		look, stop := context.WithTimeout(ctx, liveRead)
		now, err := l.commits(look)
		stop()
		switch {
		case err != nil:
			l.failed(err)
		case now != mark:
			mark, settles = now, liveSettles
		case settles > 0:
			settles--
		}
		for _, w := range l.toRead(begun, settles > 0) {
			if err == nil {
				l.look(ctx, w)
			}
		}
		wait := time.NewTimer(max(livePoll, liveShare*time.Since(begun)))
		select {
		case <-wait.C:
		case <-l.stopping:
			wait.Stop()
			return
		}
		if l.over() {
			return
		}
	}
}

// over says whether nobody looks any more, and if so lets the next one begin
// anew.
func (l *live) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = l.total > 0
	return !l.running
}

// toRead are the subjects that may have changed, and new ones, of which a look
// is now taken.
func (l *live) toRead(now time.Time, written bool) (list []*watched) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.subjects {
		past := now.Sub(w.at)
		if !w.known || past >= w.rest && (written || w.every > 0 && past >= w.every) {
			w.at = now
			list = append(list, w)
		}
	}
	return list
}

// look reads a subject, and wakes those who look at it where it changed.
func (l *live) look(ctx context.Context, w *watched) {
	ctx, cancel := context.WithTimeout(ctx, liveRead)
	defer cancel()
	defer func() {
		if cause := recover(); cause != nil { // no request is there to answer it, and the process goes on
			l.failed(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
		}
	}()
	now, err := w.read(ctx)
	if err != nil {
		l.failed(err)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.known && equalFragments(w.now, now) {
		return
	}
	w.now, w.known = now, true
	close(w.changed)
	w.changed = make(chan struct{})
}

// failed logs once in a while that pages cannot be read: each look fails while
// the database is away.
func (l *live) failed(err error) {
	const again = time.Minute
	if time.Since(l.told) >= again {
		l.told = time.Now()
		l.logger.Warn("live pages cannot be read, trying again", "error", err)
	}
}

func equalFragments(a, b []fragment) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// present gives what a subject is now, and what is closed once it is not.
func (l *live) present(w *watched) (now []fragment, known bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return w.now, w.known, w.changed
}

// stream sends a subject as server-sent events (HTML, section 9.2) until its
// reader leaves: of each change the ids in their order, and those parts that the
// reader has not got.
func (p *pages) stream(w http.ResponseWriter, r *request, key string, s subject) error {
	l := p.live
	watched, err := l.enter(r.access.TokenID, key, s)
	if err != nil {
		w.Header().Set("Retry-After", "60")
		return err
	}
	defer l.leave(r.access.TokenID, key, watched)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would wait for more
	answer := http.NewResponseController(w)
	send := func(text string) bool {
		_ = answer.SetWriteDeadline(time.Now().Add(2 * l.beat)) // where it cannot be set, nothing has to be prolonged
		if _, err := w.Write([]byte(text)); err != nil {
			return false
		}
		return answer.Flush() == nil
	}
	if !send("retry: 3000\n\n") {
		return nil
	}
	life := time.NewTimer(liveLife)
	defer life.Stop()
	beat := time.NewTicker(l.beat)
	defer beat.Stop()
	sent := map[string]uint64{}
	for {
		now, known, changed := l.present(watched)
		if known {
			if text := l.news(sent, now); text != "" && !send(text) {
				return nil
			}
		}
		select {
		case <-changed:
		case <-beat.C:
			if !p.mayGoOn(r) || !send(": here\n\n") {
				return nil
			}
		case <-life.C:
			return nil
		case <-r.Context().Done():
			return nil
		case <-l.stopping:
			return nil
		}
	}
}

// mayGoOn judges the session of a stream anew.
func (p *pages) mayGoOn(r *request) bool {
	access, err := p.Sessions.Session(r.Context(), r.session)
	if errors.Is(err, domain.ErrNoToken) {
		return false
	}
	return err != nil || access.Sees(r.account) && access.May(domain.Read, r.account)
}

// news is the event that brings a reader from what was sent to what is now, ""
// for nothing. It notes what it sends.
func (l *live) news(sent map[string]uint64, now []fragment) string {
	var data strings.Builder
	ids := make([]string, len(now))
	gone := len(sent) != len(now)
	news := gone
	present := make(map[string]uint64, len(now))
	for i, f := range now {
		ids[i] = f.id
		digest := maphash.String(l.seed, f.html)
		if have, ok := sent[f.id]; !ok || have != digest {
			news = true
			// Each is parsed by itself: a row of a table is none behind a paragraph.
			for line := range strings.Lines("<template>" + f.html + "</template>") {
				data.WriteString("data: " + strings.TrimRight(line, "\r\n") + "\n")
			}
		}
		present[f.id] = digest
	}
	if !news {
		return ""
	}
	clear(sent)
	for id, digest := range present {
		sent[id] = digest
	}
	return fmt.Sprintf("event: parts\ndata: %s\n%s\n", strings.Join(ids, " "), data.String())
}

// part makes one block of a page's template, for what is live. id is the one in
// it.
func (p *pages) part(name, block, id string, data any) (fragment, error) {
	page, ok := p.templates.pages[name]
	if !ok {
		return fragment{}, fmt.Errorf("there is no template %q", name)
	}
	var made strings.Builder
	err := page.ExecuteTemplate(&made, block, data)
	return fragment{id, strings.TrimSpace(made.String())}, err
}
