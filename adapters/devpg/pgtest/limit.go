package pgtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg"
)

// NewLimitedServer is NewServer with a disk that can be full, as far as that
// needs no rights: from its next start on the server writes no file beyond so
// many bytes, 0 for any. PostgreSQL takes that for a disk without room. A limit
// that cuts a page in half gives the SQLSTATE of a full disk, up to PostgreSQL
// 15; later ones say that the file is too large. The files of the write-ahead log
// have 1 MiB, and those of the catalogs less.
func NewLimitedServer(t testing.TB, more map[string]string) (server *devpg.Server, limit func(bytes int)) {
	t.Helper()
	binDir, _, err := devpg.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "outrider-limited-") //nolint:usetesting // the account that runs the server must pass through
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "limit")
	limit = func(bytes int) {
		t.Helper()
		blocks := "unlimited"
		if bytes > 0 {
			blocks = strconv.Itoa(bytes / 512) // what POSIX has ulimit count in
		}
		write(t, file, blocks+"\n", 0o644)
	}
	limit(0)
	write(t, filepath.Join(dir, "postgres"), fmt.Sprintf("#!/bin/sh\nulimit -S -f \"$(cat '%s')\" && exec '%s/postgres' \"$@\"\n", file, binDir), 0o755)
	write(t, filepath.Join(dir, "initdb"), fmt.Sprintf("#!/bin/sh\nexec '%s/initdb' --wal-segsize=1 \"$@\"\n", binDir), 0o755)
	write(t, filepath.Join(dir, "pg_ctl"), fmt.Sprintf("#!/bin/sh\nexec '%s/pg_ctl' \"$@\"\n", binDir), 0o755)
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	all := map[string]string{"dynamic_shared_memory_type": "sysv"} // what is no file
	maps.Copy(all, more)
	return start(t, dir, all), limit
}

// write writes a file that may be run at once: a fork beside it would inherit
// it while it is open for writing, and to run it then fails with ETXTBSY.
func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
