package devpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The content of a server's directory. It belongs to who runs Outrider, so that
// the account that runs PostgreSQL cannot place a link where root will write;
// data, run and what PostgreSQL must read belong to that account.
const (
	dataName     = "data"          // the data directory, complete since it is renamed into place
	buildingName = "data.new"      // the data directory while initdb works
	runName      = "run"           // the unix socket
	passwordName = "password"      // the superuser's
	confName     = "outrider.conf" // read by postgresql.conf, written anew by each start
	lockName     = "owner.lock"    // locked while a process uses the directory

	// tempPrefix marks the temporary directories, for sweep.
	tempPrefix = "outrider-pg-"

	// socketPathMax is the shortest limit of sun_path, that of macOS, less its
	// final zero.
	socketPathMax = 103
)

func (s *Server) dataDir() string { return filepath.Join(s.dir, dataName) }
func (s *Server) runDir() string  { return filepath.Join(s.dir, runName) }

// claim settles the directory and locks it.
func (s *Server) claim() error {
	if s.config.Dir == "" {
		return s.claimTemporary()
	}
	dir, err := filepath.Abs(s.config.Dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // the account that runs PostgreSQL must pass through; what is secret has modes of its own
		return err
	}
	if err := refuseForeign(dir); err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	s.dir, s.lock = dir, lock
	if s.account, err = accountFor(s.dataDir()); err != nil {
		return err
	}
	if blocked := firstUnpassable(dir, s.account); blocked != "" {
		return fmt.Errorf("PostgreSQL refuses to run as root, and the user %s, who runs it instead, cannot pass %s: choose another folder, or chmod o+x", s.account.name, blocked)
	}
	return nil
}

func (s *Server) claimTemporary() error {
	account, err := accountFor("")
	if err != nil {
		return err
	}
	base := cmp.Or(s.config.TempDir, os.TempDir())
	if firstUnpassable(base, account) != "" {
		base = "/tmp" // root's own $TMPDIR, where the other account cannot go
	}
	sweep(base)
	dir, err := os.MkdirTemp(base, tempPrefix)
	if err != nil {
		return err
	}
	s.dir, s.temporary, s.account = dir, true, account
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // as in claim
		return err
	}
	s.lock, err = createLock(dir)
	return err
}

// refuseForeign keeps a slip of the pen (`--dir ~`) from mixing a server with
// somebody's files.
func refuseForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	ours := slices.ContainsFunc(entries, func(entry fs.DirEntry) bool { return entry.Name() == lockName })
	if len(entries) > 0 && !ours {
		return fmt.Errorf("%s is neither empty nor a server's directory that Outrider made", dir)
	}
	return nil
}

// sweep removes the temporary directories of processes that were killed before
// they could. A directory in use has a locked file; one that is just being made
// has none, since createLock renames it into place when it is locked.
func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, tempPrefix+"*"))
	for _, dir := range dirs {
		if !ownedByUs(dir) || serverAlive(dir) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, lockName)); err != nil {
			continue
		}
		lock, err := lockDir(dir)
		if err != nil {
			continue
		}
		removeSharedMemory(filepath.Join(dir, dataName))
		_ = os.RemoveAll(dir) // else the next start tries again
		_ = unlock(lock)
	}
}

// pidFile is what a postmaster writes about itself; the lines' numbers are
// those of LOCK_FILE_LINE_* in PostgreSQL's pidfile.h, less one.
type pidFile []string

const (
	pidLine          = 0 // the process id
	sharedMemoryLine = 6 // key and id of the System V segment
	statusLine       = 7 // "starting", "ready   ", ...
)

// readPIDFile is empty where there is no server, or one that ended well.
func readPIDFile(data string) pidFile {
	content, err := os.ReadFile(filepath.Join(data, "postmaster.pid")) //nolint:gosec // a path of our own making
	if err != nil {
		return nil
	}
	return strings.Split(string(content), "\n")
}

func (p pidFile) line(n int) string {
	if n >= len(p) {
		return ""
	}
	return strings.TrimSpace(p[n])
}

// saysReady tells whether the postmaster with this id takes connections.
func saysReady(data string, pid int) bool {
	file := readPIDFile(data)
	return file.line(pidLine) == strconv.Itoa(pid) && file.line(statusLine) == "ready"
}

// serverAlive tells whether the postmaster that wrote the pid file still runs.
func serverAlive(dir string) bool {
	pid, err := strconv.Atoi(readPIDFile(filepath.Join(dir, dataName)).line(pidLine))
	return err == nil && pid > 0 && processAlive(pid)
}

// madeBy is the major version that made the data, 0 where there is none.
func (s *Server) madeBy() (int, error) {
	content, err := os.ReadFile(filepath.Join(s.dataDir(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(content)))
}

// prepare makes what the directory lacks.
//
// Copying a data directory made once would take 0.1 s instead of initdb's 0.8 s,
// and is not done: the copies would share one system identifier, by which the
// relay tells databases apart.
func (s *Server) prepare(ctx context.Context) error {
	if err := s.makeRunDir(); err != nil {
		return err
	}
	passwordFile := filepath.Join(s.dir, passwordName)
	made, err := s.madeBy()
	if err != nil {
		return err
	}
	if made != 0 {
		password, err := os.ReadFile(passwordFile) //nolint:gosec // a path of our own making
		s.password = strings.TrimSpace(string(password))
		return err
	}
	s.password = newPassword()
	if err := s.write(passwordFile, s.password+"\n"); err != nil {
		return err
	}
	return s.initdb(ctx, passwordFile)
}

func (s *Server) makeRunDir() error {
	if err := os.RemoveAll(s.runDir()); err != nil {
		return err
	}
	return makeFor(s.account, s.runDir())
}

func (s *Server) initdb(ctx context.Context, passwordFile string) error {
	building := filepath.Join(s.dir, buildingName)
	if err := os.RemoveAll(building); err != nil { // an initdb that was killed
		return err
	}
	if err := makeFor(s.account, building); err != nil {
		return err
	}
	args := []string{
		"-D", building, "-U", superuser, "-E", "UTF8", "--locale=C",
		"--auth=scram-sha-256", "--pwfile=" + passwordFile, "--no-instructions",
	}
	if !s.config.Durable {
		args = append(args, "--no-sync")
	}
	if err := runProcess(ctx, command(s.account, s.dir, filepath.Join(s.binDir, "initdb"), args...)); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	if err := appendTo(filepath.Join(building, "postgresql.conf"), "\ninclude '../"+confName+"'\n"); err != nil {
		return err
	}
	return os.Rename(building, s.dataDir())
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0) //nolint:gosec // a path of our own making
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// settingName is that of a PostgreSQL parameter, with the prefix of an extension.
var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?$`)

func (s *Server) writeConf() error {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": "",
		"unix_socket_permissions": "0700",
		"fsync":                   onOff(s.config.Durable),
		"full_page_writes":        onOff(s.config.Durable),
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"log_line_prefix":         "%m [%p] ",
	}
	if len(s.runDir())+len("/.s.PGSQL.65535") <= socketPathMax {
		settings["unix_socket_directories"] = s.runDir()
	}
	if s.temporary {
		// Files in the directory instead of objects in /dev/shm, which a server
		// that is killed leaves behind for its next start, and this has none.
		settings["dynamic_shared_memory_type"] = "mmap"
	}
	maps.Copy(settings, s.config.Settings)

	var conf strings.Builder
	conf.WriteString("# Written by Outrider at each start; what you change here is lost.\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if !settingName.MatchString(name) {
			return fmt.Errorf("%q is no name of a PostgreSQL setting", name)
		}
		fmt.Fprintf(&conf, "%s = '%s'\n", name, escapeSetting.Replace(settings[name]))
	}
	return s.write(filepath.Join(s.dir, confName), conf.String())
}

// escapeSetting follows the PostgreSQL manual, section 20.1.2.
var escapeSetting = strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`)

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// write makes a file that only the account that runs PostgreSQL reads.
func (s *Server) write(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return give(s.account, path)
}

// makeFor makes a directory that only the account can enter.
func makeFor(account *account, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return give(account, dir)
}

func give(account *account, path string) error {
	if account == nil {
		return nil
	}
	return os.Lchown(path, account.uid, account.gid)
}
