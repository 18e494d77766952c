//go:build linux && (amd64 || arm64)

package devpg_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg"
)

func TestKilledServerLeavesNoSharedMemory(t *testing.T) {
	t.Parallel()
	server := start(t, devpg.Config{})
	pidFile := readFile(t, filepath.Join(server.Dir(), "data", "postmaster.pid"))
	key := strings.Fields(strings.Split(pidFile, "\n")[6])[0]
	if !hasSegment(t, key) {
		t.Fatalf("no segment with key %s while the server runs", key)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if hasSegment(t, key) {
		t.Errorf("the segment with key %s is left", key)
	}
}

// hasSegment looks for a key in the first column of /proc/sysvipc/shm.
func hasSegment(t *testing.T, key string) bool {
	t.Helper()
	for line := range strings.Lines(readFile(t, "/proc/sysvipc/shm")) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == key {
			return true
		}
	}
	return false
}
