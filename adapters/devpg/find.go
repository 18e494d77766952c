package devpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// binVariable names the folder to use, and then no other is looked at.
	binVariable = "OUTRIDER_PG_BIN"

	// oldest is the first version that the migrations run on.
	oldest = 14

	// probeTimeout bounds one `--version`; a program that hangs is no server.
	probeTimeout = 10 * time.Second
)

// ErrNotFound says that no PostgreSQL server is installed; the error that
// wraps it has the command that installs one.
var ErrNotFound = errors.New("no PostgreSQL server (version 14 or newer) found")

// Find looks for PostgreSQL's server binaries: in $OUTRIDER_PG_BIN and, where
// that is not set, in $PATH, where pg_config says, and in the folders of
// Debian, Red Hat and Homebrew, the highest version first. A folder counts if
// it has initdb, postgres and pg_ctl, and postgres tells its version, "15.18".
func Find(ctx context.Context) (binDir, version string, err error) {
	found, err := newFinder().find(ctx, 0)
	return found.dir, found.version, err
}

// FindWith is Find for whoever needs more of PostgreSQL's programs, such as
// pg_dump: where the folder of $OUTRIDER_PG_BIN lacks one, the others are looked
// at.
func FindWith(ctx context.Context, programs ...string) (binDir, version string, err error) {
	f := newFinder()
	for _, dir := range append([]string{f.getenv(binVariable)}, f.places(ctx)...) {
		lacks := func(program string) bool { return !isProgram(filepath.Join(dir, program)) }
		if slices.ContainsFunc(programs, lacks) {
			continue
		}
		if found, err := probe(ctx, dir); err == nil {
			return found.dir, found.version, nil
		}
	}
	return "", "", fmt.Errorf("%w with %s; to install one: %s", ErrNotFound, strings.Join(programs, " and "), f.advice())
}

// candidate is a folder that counts.
type candidate struct {
	dir     string
	version string // "15.18"
	major   int    // 15
}

// finder holds what Find sees of the machine, so that tests can make up one.
type finder struct {
	getenv func(string) string
	root   string // in front of the fixed folders
	goos   string
	euid   int
}

func newFinder() finder {
	return finder{getenv: os.Getenv, root: "/", goos: runtime.GOOS, euid: os.Geteuid()}
}

// find prefers the given major version; 0 is any.
func (f finder) find(ctx context.Context, major int) (candidate, error) {
	if dir := f.getenv(binVariable); dir != "" {
		found, err := probe(ctx, dir)
		if err != nil {
			return candidate{}, fmt.Errorf("%w in %s=%s (%w); correct or unset it, or install a server: %s", ErrNotFound, binVariable, dir, err, f.advice())
		}
		return found, nil
	}
	var first candidate
	var rejected []error
	for _, dir := range f.places(ctx) {
		found, err := probe(ctx, dir)
		switch {
		case errors.Is(err, errNoServer):
		case err != nil:
			rejected = append(rejected, err)
		case major == 0 || found.major == major:
			return found, nil
		case first.dir == "":
			first = found
		}
	}
	if first.dir != "" {
		return first, nil
	}
	err := fmt.Errorf("%w; to install one: %s (or set %s to the folder that holds initdb and postgres)", ErrNotFound, f.advice(), binVariable)
	if len(rejected) > 0 {
		err = fmt.Errorf("%w; what was found does not work: %w", err, errors.Join(rejected...))
	}
	return candidate{}, err
}

// places lists the folders to look in, the preferred first.
func (f finder) places(ctx context.Context) []string {
	path := filepath.SplitList(f.getenv("PATH"))
	places := slices.Clone(path)
	for _, dir := range path {
		if isProgram(filepath.Join(dir, "pg_config")) {
			if out, err := output(ctx, filepath.Join(dir, "pg_config"), "--bindir"); err == nil {
				places = append(places, strings.TrimSpace(out))
			}
			break
		}
	}
	for _, pattern := range []string{
		"usr/lib/postgresql/*/bin", // Debian, Ubuntu
		"usr/pgsql-*/bin",          // Red Hat, from PostgreSQL's own packages
		"opt/homebrew/opt/postgresql@*/bin",
		"usr/local/opt/postgresql@*/bin",
	} {
		dirs, _ := filepath.Glob(filepath.Join(f.root, pattern))
		slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(numberIn(b), numberIn(a)) })
		places = append(places, dirs...)
	}
	return slices.DeleteFunc(places, func(dir string) bool { return !filepath.IsAbs(dir) })
}

var lastNumber = regexp.MustCompile(`\d+`)

// numberIn is the version in the parent folder's name: 9.6 counts as 9.
func numberIn(binDir string) int {
	number, _ := strconv.Atoi(lastNumber.FindString(filepath.Base(filepath.Dir(binDir))))
	return number
}

// errNoServer: the folder has none of the binaries, which is no news.
var errNoServer = errors.New("no server binaries")

// versionLine is "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)".
var versionLine = regexp.MustCompile(`^postgres \(PostgreSQL\) ((\d+)\S*)`)

// probe judges a folder. A link in it (`/usr/local/bin/postgres`) is followed
// to the folder of the server proper, where initdb finds its other files.
func probe(ctx context.Context, dir string) (candidate, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return candidate{}, err
	}
	if !isProgram(filepath.Join(dir, "postgres")) {
		return candidate{}, fmt.Errorf("%w in %s", errNoServer, dir)
	}
	if target, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil && complete(filepath.Dir(target)) == nil {
		dir = filepath.Dir(target)
	}
	if err := complete(dir); err != nil {
		return candidate{}, err
	}
	postgres := filepath.Join(dir, "postgres")
	out, err := output(ctx, postgres, "--version")
	if err != nil {
		return candidate{}, fmt.Errorf("%s --version: %w", postgres, err)
	}
	match := versionLine.FindStringSubmatch(out)
	if match == nil {
		return candidate{}, fmt.Errorf("%s is no PostgreSQL server: it says %.80q", postgres, out)
	}
	major, err := strconv.Atoi(match[2])
	if err != nil {
		return candidate{}, err
	}
	if major < oldest {
		return candidate{}, fmt.Errorf("%s is PostgreSQL %s, older than %d", postgres, match[1], oldest)
	}
	return candidate{dir: dir, version: match[1], major: major}, nil
}

// complete tells which binary a folder lacks.
func complete(dir string) error {
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		if !isProgram(filepath.Join(dir, name)) {
			return fmt.Errorf("%s has no %s", dir, name)
		}
	}
	return nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func output(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // the point is to ask what is installed
	cmd.WaitDelay = time.Second                    // a child of it may keep the pipe open
	out, err := cmd.Output()
	return string(out), err
}

// advice is the one command that installs a server here.
func (f finder) advice() string {
	if f.goos == "darwin" {
		return "brew install postgresql@17"
	}
	sudo := "sudo "
	if f.euid == 0 {
		sudo = ""
	}
	for _, manager := range []struct{ program, install string }{
		{"apt-get", "apt-get install -y postgresql"},
		{"dnf", "dnf install -y postgresql-server"},
		{"zypper", "zypper install -y postgresql-server"},
		{"apk", "apk add postgresql"},
		{"pacman", "pacman -S --noconfirm postgresql"},
	} {
		if isProgram(filepath.Join(f.root, "usr/bin", manager.program)) || isProgram(filepath.Join(f.root, "sbin", manager.program)) {
			return sudo + manager.install
		}
	}
	return "see https://www.postgresql.org/download/"
}
