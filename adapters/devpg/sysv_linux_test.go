//go:build linux && (amd64 || arm64)

package devpg_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg"
)

func TestKilledServerLeavesNoSharedMemory(t *testing.T) {
	t.Parallel()
	server := start(t, devpg.Config{})
	content, err := os.ReadFile(filepath.Join(server.Dir(), "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	key := strings.Fields(strings.Split(string(content), "\n")[6])[0]
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
	content, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == key {
			return true
		}
	}
	return false
}
