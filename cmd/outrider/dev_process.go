package main

import (
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// childProcess is this program as another process, so that it can be killed.
type childProcess struct {
	cmd    *osexec.Cmd
	exited chan struct{} // closed when it has ended
	err    error         // set before
}

// anyPort lets a process choose its port: one that is chosen before is another's
// by the time it listens.
const anyPort = "127.0.0.1:0"

var listening = regexp.MustCompile(` listen=(\S+)`)

// listensAt gives the URL at which a process listens, as its log says; "" where it
// does not yet.
func listensAt(log string) string {
	content, err := os.ReadFile(log) //nolint:gosec // of a child of ours
	if err != nil {
		return ""
	}
	found := listening.FindSubmatch(content)
	if found == nil {
		return ""
	}
	return "http://" + string(found[1])
}

// startChild runs a program with an environment that has no settings
// but the given ones. It is in a process group of its own: Ctrl-C in the
// terminal reaches us, and we stop it.
func startChild(log *os.File, program string, settings []string, args ...string) (*childProcess, error) {
	cmd := osexec.Command(program, args...) //nolint:gosec,noctx // this very program; it ends by stop or kill
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "OUTRIDER_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, settings...)
	p := &childProcess{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent-death signal comes when the starting thread ends, so this
		// one must stay as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *childProcess) pid() int { return p.cmd.Process.Pid }

// failure is why it ended; only after exited.
func (p *childProcess) failure() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// kill ends it as `kill -9` does, and waits for that.
func (p *childProcess) kill() {
	_ = p.cmd.Process.Kill() // it fails where it has ended
	<-p.exited
}

// stop asks it to end, and kills it when it takes longer than timeout.
func (p *childProcess) stop(timeout time.Duration) error {
	select {
	case <-p.exited:
		return nil
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.exited:
		return p.err
	case <-timer.C:
		p.kill()
		return fmt.Errorf("it did not end within %s and was killed", timeout)
	}
}
