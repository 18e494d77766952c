package devpg

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFindWithNonsenseInTheEnvironment(t *testing.T) {
	t.Setenv("PATH", "")
	t.Setenv("OUTRIDER_PG_BIN", "/nonsense")
	_, _, err := Find(t.Context())
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "/nonsense") || !strings.Contains(err.Error(), "install") {
		t.Errorf("error is %v", err)
	}
}

func TestFindOnThisMachine(t *testing.T) {
	t.Parallel()
	dir, version, err := Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := complete(dir); err != nil || version == "" {
		t.Errorf("found %s, version %q: %v", dir, version, err)
	}
}

const server15 = `echo "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"`

func TestFind(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		programs map[string]string // path to script
		links    map[string]string
		env      map[string]string // ROOT stands for the machine's root
		major    int
		dir      string
		version  string
		err      string
	}{
		"nothing": {
			programs: map[string]string{"usr/bin/apt-get": ""},
			err:      "sudo apt-get install -y postgresql",
		},
		"nothing on another system": {
			programs: map[string]string{"usr/bin/dnf": ""},
			err:      "sudo dnf install -y postgresql-server",
		},
		"the variable": {
			programs: server("home/pg", server15),
			env:      map[string]string{"OUTRIDER_PG_BIN": "ROOT/home/pg"},
			dir:      "home/pg", version: "15.18",
		},
		"a variable that is wrong is not passed over": {
			programs: server("usr/lib/postgresql/15/bin", server15),
			env:      map[string]string{"OUTRIDER_PG_BIN": "ROOT/home/pg"},
			err:      "OUTRIDER_PG_BIN=",
		},
		"the path comes first": {
			programs: merge(server("usr/lib/postgresql/17/bin", `echo "postgres (PostgreSQL) 17.2"`), server("bin", server15)),
			env:      map[string]string{"PATH": "relative::ROOT/bin"},
			dir:      "bin", version: "15.18",
		},
		"a link leads to the server": {
			programs: server("usr/lib/postgresql/15/bin", server15),
			links:    map[string]string{"bin/postgres": "usr/lib/postgresql/15/bin/postgres"},
			env:      map[string]string{"PATH": "ROOT/bin"},
			dir:      "usr/lib/postgresql/15/bin", version: "15.18",
		},
		"pg_config knows": {
			programs: merge(server("opt/pg", server15), map[string]string{"bin/pg_config": "echo ROOT/opt/pg"}),
			env:      map[string]string{"PATH": "ROOT/bin"},
			dir:      "opt/pg", version: "15.18",
		},
		"the highest version": {
			programs: merge(server("usr/lib/postgresql/9.6/bin", ""), server("usr/lib/postgresql/14/bin", ""),
				server("usr/lib/postgresql/17/bin", `echo "postgres (PostgreSQL) 17beta1"`)),
			dir: "usr/lib/postgresql/17/bin", version: "17beta1",
		},
		"the version asked for": {
			programs: merge(server("usr/lib/postgresql/15/bin", server15), server("usr/lib/postgresql/17/bin", `echo "postgres (PostgreSQL) 17.2"`)),
			major:    15, dir: "usr/lib/postgresql/15/bin", version: "15.18",
		},
		"what fails, lies, is old or incomplete is passed over": {
			programs: merge(server("a", "exit 3"), server("b", "echo BusyBox"), server("c", `echo "postgres (PostgreSQL) 13.9"`),
				map[string]string{"d/postgres": server15}, server("usr/pgsql-16/bin", `echo "postgres (PostgreSQL) 16.1"`)),
			env: map[string]string{"PATH": "ROOT/a:ROOT/b:ROOT/c:ROOT/d"},
			dir: "usr/pgsql-16/bin", version: "16.1",
		},
		"the error names what was passed over": {
			programs: server("c", `echo "postgres (PostgreSQL) 13.9"`),
			env:      map[string]string{"PATH": "ROOT/c"},
			err:      "PostgreSQL 13.9, older than 14",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, err := filepath.EvalSymlinks(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for path, script := range test.programs {
				writeProgram(t, filepath.Join(root, path), strings.ReplaceAll(script, "ROOT", root))
			}
			for link, target := range test.links {
				link = filepath.Join(root, link)
				if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(filepath.Join(root, target), link)); err != nil {
					t.Fatal(err)
				}
			}
			getenv := func(name string) string { return strings.ReplaceAll(test.env[name], "ROOT", root) }
			found, err := finder{getenv: getenv, root: root, goos: "linux", euid: 1000}.find(t.Context(), test.major)
			if test.err != "" {
				if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error is %v, want it to have %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if found.dir != filepath.Join(root, test.dir) || found.version != test.version {
				t.Errorf("found %+v, want %s, %s", found, test.dir, test.version)
			}
		})
	}
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeProgram(t, filepath.Join(root, "usr/bin/apt-get"), "")
	for want, f := range map[string]finder{
		"apt-get install -y postgresql":            {goos: "linux", root: root},
		"sudo apt-get install -y postgresql":       {goos: "linux", root: root, euid: 1000},
		"brew install postgresql@17":               {goos: "darwin", root: root, euid: 501},
		"see https://www.postgresql.org/download/": {goos: "freebsd", root: t.TempDir()},
	} {
		if got := f.advice(); got != want {
			t.Errorf("advice on %s is %q, want %q", f.goos, got, want)
		}
	}
}

// server is a folder with the three binaries.
func server(dir, postgres string) map[string]string {
	return map[string]string{dir + "/postgres": postgres, dir + "/initdb": "", dir + "/pg_ctl": ""}
}

func merge(all ...map[string]string) map[string]string {
	merged := map[string]string{}
	for _, programs := range all {
		for path, script := range programs {
			merged[path] = script
		}
	}
	return merged
}

func writeProgram(t *testing.T, path, script string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	// A fork by another test would inherit the file while it is open for
	// writing, and to run it then fails with ETXTBSY.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}
