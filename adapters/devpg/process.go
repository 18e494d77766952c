package devpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// quitTimeout is more than the 5 s that a postmaster gives its children
	// after SIGQUIT before it kills them.
	quitTimeout = 7 * time.Second

	// drainTimeout is for backends that notice late that the postmaster died.
	drainTimeout = 10 * time.Second

	tailLines = 500
	lineMax   = 4096
)

var (
	// errPortTaken: somebody listens on the port.
	errPortTaken = errors.New("the port is taken")
	// errBusy: remains of a crashed server are still in the directory.
	errBusy = errors.New("the directory is still in use")
)

// process is a child whose output ends in a tail. Its log pipe is inherited by
// all its children, so that the end of the pipe says that all are gone.
type process struct {
	cmd     *exec.Cmd
	serving atomic.Bool   // its end, if we do not ask for it, is to be logged
	exited  chan struct{} // closed when the child is waited for
	drained chan struct{} // closed when no process has the pipe
	err     error         // set before exited is closed
}

// startProcess runs a child in a process group of its own, so that Ctrl-C in
// the terminal reaches us only, and we stop it when we are done with it.
func startProcess(cmd *exec.Cmd, tail *tail, log *slog.Logger) (*process, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	p := &process{cmd: cmd, exited: make(chan struct{}), drained: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent-death signal comes when the starting *thread* ends, so
		// this one must stay as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = writer.Close()
		started <- err
		if err == nil {
			p.wait(tail, log)
		}
	}()
	if err := <-started; err != nil {
		_ = reader.Close()
		return nil, err
	}
	go func() {
		defer close(p.drained)
		tail.follow(reader, log)
		_ = reader.Close()
	}()
	return p, nil
}

func (p *process) wait(tail *tail, log *slog.Logger) {
	p.err = p.cmd.Wait()
	close(p.exited)
	if p.serving.Load() {
		_ = p.drain() // so that the log is complete; else what there is
		log.Error("postgres ended by itself", "error", p.failure(), "log_tail", tail.last(5))
	}
}

// failure is why the child ended; only after exited.
func (p *process) failure() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// stop asks for a fast shutdown; from the end of ctx on, for an immediate one.
func (p *process) stop(ctx context.Context) error {
	p.serving.Store(false)
	p.signal(syscall.SIGINT)
	select {
	case <-p.exited:
		return p.drain()
	case <-ctx.Done():
	}
	p.signal(syscall.SIGQUIT)
	select {
	case <-p.exited:
		return p.drain()
	case <-time.After(quitTimeout):
		return p.kill()
	}
}

func (p *process) kill() error {
	p.serving.Store(false)
	select {
	case <-p.exited:
	default:
		killTree(p.cmd.Process)
		<-p.exited
	}
	return p.drain()
}

func (p *process) drain() error {
	select {
	case <-p.drained:
		return nil
	case <-time.After(drainTimeout):
		return fmt.Errorf("processes of postgres (pid %d) are left %s after it ended", p.cmd.Process.Pid, drainTimeout)
	}
}

// signal ignores the one possible error: that the process has ended.
func (p *process) signal(signal os.Signal) { _ = p.cmd.Process.Signal(signal) }

// runProcess runs a child to its end; its output is in the error.
func runProcess(ctx context.Context, cmd *exec.Cmd) error {
	output := &tail{}
	p, err := startProcess(cmd, output, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), p.kill())
	}
	if err := p.drain(); err != nil {
		return err
	}
	if p.err != nil {
		return explain(p.err, output.last(20))
	}
	return nil
}

// command is one of PostgreSQL's binaries, run as the account, with nothing in
// its environment that would change what it does or says.
func command(account *account, dir, path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...) //nolint:gosec,noctx // the binary that Find has checked; the child outlives the context of its start
	cmd.Dir = dir
	cmd.SysProcAttr = attributes(account)
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "LC_") && name != "LANG" && name != "LANGUAGE" && name != "TZ" {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C", "TZ=UTC")
	return cmd
}

// explain adds the log to an error, and the sentinel that the log tells.
// Messages are in English, see command.
func explain(err error, log string) error {
	switch {
	case strings.Contains(log, "could not create any TCP/IP sockets"):
		err = fmt.Errorf("%w: %w", errPortTaken, err)
	case strings.Contains(log, `lock file "postmaster.pid" already exists`), strings.Contains(log, "pre-existing shared memory block"):
		err = fmt.Errorf("%w: %w", errBusy, err)
	}
	return fmt.Errorf("%w; the end of its log:\n%s", err, log)
}

// tail keeps the last lines of a log. The zero value is empty.
type tail struct {
	mu    sync.Mutex
	lines []string
}

// follow reads to the end whatever happens: PostgreSQL would wait for a reader
// that stops.
func (t *tail) follow(reader io.Reader, log *slog.Logger) {
	buffered := bufio.NewReaderSize(reader, lineMax)
	for {
		line, cut, err := buffered.ReadLine()
		if err != nil {
			return
		}
		text := string(line)
		t.add(text)
		log.Debug("postgres", "line", text)
		for cut && err == nil { // what is beyond lineMax
			_, cut, err = buffered.ReadLine()
		}
	}
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
	t.lines = append(t.lines, line)
}

func (t *tail) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = nil
}

func (t *tail) last(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines[max(0, len(t.lines)-max(0, n)):], "\n")
}
