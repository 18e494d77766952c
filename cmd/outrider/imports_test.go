package main_test

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/outrider-relay/outrider"

// layers are the folders in the order of the flow: an import names only
// something to its left. migrations stands beside them, see checkImport.
var layers = []string{"domain", "outbox", "relay", "adapters", "cmd"}

// checkImport tells what is wrong when code in package folder from (relative
// to the module, "relay") imports path; nil for what is not ours.
func checkImport(from, importPath string) error {
	if importPath == modulePath {
		return fmt.Errorf("%s imports the module's root, which has no code", from)
	}
	to, ours := strings.CutPrefix(importPath, modulePath+"/")
	if !ours {
		return nil
	}
	fromLayer, toLayer := firstFolder(from), firstFolder(to)
	switch {
	case to == "adapters/devpg/pgtest" && from != to:
		return fmt.Errorf("%s imports %s, which is for tests", from, to)
	case fromLayer == "migrations":
		return fmt.Errorf("migrations is a leaf, and imports %s", to)
	case toLayer == "migrations":
		if fromLayer != "adapters" && fromLayer != "cmd" {
			return fmt.Errorf("%s imports migrations, which is for adapters and cmd", from)
		}
		return nil
	case !slices.Contains(layers, fromLayer):
		return fmt.Errorf("%s is in none of the folders %v", from, layers)
	case !slices.Contains(layers, toLayer):
		return fmt.Errorf("%s imports %s, which is in none of the folders %v", from, to, layers)
	case slices.Index(layers, toLayer) > slices.Index(layers, fromLayer):
		return fmt.Errorf("%s imports %s, against the direction %s", from, to, strings.Join(layers, " <- "))
	case fromLayer == "adapters" && toLayer == "adapters" && adapter(from) != adapter(to):
		return fmt.Errorf("%s imports %s: adapters do not know each other", from, to)
	}
	return nil
}

func firstFolder(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

// adapter is "devpg" for "adapters/devpg/pgtest".
func adapter(dir string) string {
	return firstFolder(strings.TrimPrefix(dir, "adapters/"))
}

func TestCheckImport(t *testing.T) {
	t.Parallel()
	tests := []struct {
		from, to string
		ok       bool
	}{
		{"domain", "net/url", true},
		{"domain", "github.com/google/uuid", true},
		{"domain", modulePath + "x/domain", true}, // another module
		{"outbox", modulePath + "/domain", true},
		{"relay", modulePath + "/outbox", true},
		{"adapters/postgres", modulePath + "/relay", true},
		{"adapters/postgres", modulePath + "/migrations", true},
		{"adapters/web/pages", modulePath + "/adapters/web", true},
		{"adapters/devpg", modulePath + "/adapters/devpg/cluster", true},
		{"adapters/devpg/pgtest", modulePath + "/adapters/devpg", true},
		{"cmd/outrider", modulePath + "/adapters/httpsend", true},
		{"cmd/outrider", modulePath + "/domain", true},
		{"cmd/outrider", modulePath + "/migrations", true},

		{"domain", modulePath + "/outbox", false},
		{"domain", modulePath + "/migrations", false},
		{"outbox", modulePath + "/relay", false},
		{"outbox", modulePath + "/adapters/postgres", false},
		{"relay", modulePath + "/adapters/postgres", false},
		{"relay", modulePath + "/migrations", false},
		{"relay", modulePath + "/cmd/outrider", false},
		{"adapters/web", modulePath + "/adapters/postgres", false},
		{"adapters/web", modulePath + "/adapters/webhooks", false},
		{"adapters/web", modulePath + "/cmd/outrider", false},
		{"adapters/devpg", modulePath + "/adapters/devpg/pgtest", false},
		{"cmd/outrider", modulePath + "/adapters/devpg/pgtest", false},
		{"migrations", modulePath + "/domain", false},
		{"domain", modulePath + "/internal/util", false},
		{"util", modulePath + "/domain", false},
		{"cmd/outrider", modulePath, false},
	}
	for _, test := range tests {
		if err := checkImport(test.from, test.to); (err == nil) != test.ok {
			t.Errorf("%s importing %s: %v, want ok: %v", test.from, test.to, err, test.ok)
		}
	}
}

// checkTree checks the imports of all .go files below root but the tests',
// which may use adapters/devpg/pgtest from anywhere. It also counts the files,
// so that a check of nothing is seen.
func checkTree(root fs.FS) (files int, err error) {
	var problems []error
	walk := func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || name == "bin"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		files++
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if err := checkImport(path.Dir(name), imported); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", name, err))
			}
		}
		return nil
	}
	err = fs.WalkDir(root, ".", walk)
	return files, errors.Join(append(problems, err)...)
}

func TestImportsFollowTheFlow(t *testing.T) {
	t.Parallel()
	files, err := checkTree(os.DirFS(moduleRoot(t)))
	if err != nil {
		t.Error(err)
	}
	if files == 0 {
		t.Error("no file was checked")
	}
}

func TestCheckTreeFindsABadImport(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, "domain/good.go", "package domain\n\nimport \"fmt\"\n\nvar _ = fmt.Sprint\n")
	write(t, root, "domain/bad.go", "package domain\n\nimport _ \""+modulePath+"/relay\"\n")
	write(t, root, "domain/bad_test.go", "package domain\n\nimport _ \""+modulePath+"/adapters/devpg/pgtest\"\n")
	write(t, root, ".cache/bad.go", "not even Go")
	files, err := checkTree(os.DirFS(root))
	if files != 2 {
		t.Errorf("%d files were checked, want 2", files)
	}
	if err == nil || !strings.Contains(err.Error(), "domain/bad.go") || strings.Contains(err.Error(), "bad_test.go") {
		t.Errorf("error is %v", err)
	}
}

// topLevel is all that may be in the module's root, besides dot files.
var topLevel = []string{
	"domain", "outbox", "relay", "adapters", "cmd", "migrations",
	"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CHANGELOG.md",
}

// unknownEntries are the names that have no place in the root.
func unknownEntries(names []string) []string {
	var unknown []string
	for _, name := range names {
		first := firstFolder(name)
		if !strings.HasPrefix(first, ".") && !slices.Contains(topLevel, first) && !slices.Contains(unknown, first) {
			unknown = append(unknown, first)
		}
	}
	return unknown
}

func TestTopLevel(t *testing.T) {
	t.Parallel()
	if unknown := unknownEntries(entries(t, moduleRoot(t))); len(unknown) > 0 {
		t.Errorf("%v have no place in the root: the folders are what the program does, the files are %v", unknown, topLevel)
	}
}

func TestUnknownEntriesFindsOne(t *testing.T) {
	t.Parallel()
	got := unknownEntries([]string{"domain/doc.go", ".ci/run", "README.md", "internal/a.go", "internal/b.go", "main.go"})
	if !slices.Equal(got, []string{"internal", "main.go"}) {
		t.Errorf("unknown are %v", got)
	}
}

// entries are the files under version control; in an unpacked archive, all but
// what `make build` makes.
func entries(t *testing.T, root string) []string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, ".git")); err == nil {
		list := exec.CommandContext(t.Context(), "git", "ls-files", "-z")
		list.Dir = root
		if out, err := list.Output(); err == nil && len(out) > 0 {
			return strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
		}
	}
	found, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range found {
		if entry.Name() != "bin" {
			names = append(names, entry.Name())
		}
	}
	return names
}

// moduleRoot is the nearest folder upwards with a go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod from here upwards")
		}
		dir = filepath.Dir(dir)
	}
}

func write(t *testing.T, root, name, content string) {
	t.Helper()
	name = filepath.Join(root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
