//go:build unix

package devpg_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg"
)

// helperVariable makes the test binary the process that a test needs beside
// its own.
const helperVariable = "OUTRIDER_DEVPG_TEST_HELPER"

// started is what a helper tells of its server, as JSON on one line.
type started struct{ Dir, DSN, Account string }

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) == "" {
		m.Run()
		return
	}
	if err := help(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// help runs a server until its standard input ends.
func help() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	server, err := devpg.Start(ctx, devpg.Config{})
	if err != nil {
		return err
	}
	account, err := user.Current()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(started{Dir: server.Dir(), DSN: server.DSN("postgres"), Account: account.Username}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return server.Stop(ctx)
}

func TestServerEndsWithItsKilledParent(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the parent-death signal is Linux's")
	}
	helper := startHelper(t, nil)
	if left := processesIn(helper.Dir); len(left) < 2 {
		t.Fatalf("the test sees no server to begin with: %v", left)
	}
	if err := helper.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server to end", func() bool { return len(processesIn(helper.Dir)) == 0 })
	if err := ping(t, helper.DSN); err == nil {
		t.Error("the server answers after its parent's end")
	}

	// The dead cannot tidy up; the next server does it for them.
	start(t, devpg.Config{})
	if _, err := os.Stat(helper.Dir); !os.IsNotExist(err) {
		t.Errorf("the directory of the killed process is still there: %v", err)
	}
}

func TestStartNeedsNoRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root: every other test shows it")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
	helper := startHelper(t, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)})
	if helper.Account != "nobody" {
		t.Errorf("the helper runs as %s", helper.Account)
	}
	if err := ping(t, helper.DSN); err != nil {
		t.Error(err)
	}
	if err := helper.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := helper.cmd.Wait(); err != nil {
		t.Errorf("stop as nobody: %v", err)
	}
}

type helper struct {
	started

	cmd   *osexec.Cmd
	stdin io.Closer
}

func startHelper(t *testing.T, as *syscall.Credential) helper {
	t.Helper()
	cmd := osexec.CommandContext(t.Context(), copyOfThisBinary(t))
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), helperVariable+"=1", "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the helper started no server: %v", err)
	}
	h := helper{cmd: cmd, stdin: stdin}
	if err := json.Unmarshal(line, &h.started); err != nil {
		t.Fatal(err)
	}
	return h
}

// copyOfThisBinary is where another user may run it.
func copyOfThisBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(passableDir(t), "devpg.test")
	// A fork by another test would inherit the file while it is open for
	// writing, and to run it then fails with ETXTBSY.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// processesIn lists the processes at work in a folder below dir: postmaster
// and backends are in their data directory.
func processesIn(dir string) []string {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	return slices.DeleteFunc(links, func(link string) bool {
		target, err := os.Readlink(link)
		return err != nil || !strings.HasPrefix(target, dir)
	})
}
