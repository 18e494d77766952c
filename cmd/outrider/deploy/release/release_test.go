package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// top is the repository's: tests run in their package's folder.
var top = filepath.Join("..", "..", "..", "..")

// makeRelease runs `make release` for this machine as a person does.
func makeRelease(t *testing.T, dist string, more ...string) ([]byte, error) {
	t.Helper()
	args := append([]string{"-C", top, "release", "DIST=" + dist, "VERSION=v1.2.3", "PLATFORMS=" + runtime.GOOS + "/" + runtime.GOARCH}, more...)
	cmd := exec.CommandContext(t.Context(), "make", args...)
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); !strings.HasPrefix(name, "MAKE") && name != "MFLAGS" {
			cmd.Env = append(cmd.Env, variable) // not those of the make that runs the tests
		}
	}
	cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH=1700000000") // the test may run outside git
	return cmd.CombinedOutput()
}

func TestMakeRelease(t *testing.T) {
	t.Parallel()
	dist := filepath.Join(t.TempDir(), "dist")
	if out, err := makeRelease(t, dist); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	folder := "outrider-v1.2.3-" + runtime.GOOS + "-" + runtime.GOARCH
	packed := read(t, filepath.Join(dist, folder+".tar.gz"))
	sums := string(read(t, filepath.Join(dist, "SHA256SUMS")))
	if want := fmt.Sprintf("%x  %s.tar.gz\n", sha256.Sum256(packed), folder); sums != want {
		t.Errorf("SHA256SUMS is %q, want %q", sums, want)
	}

	files := unpack(t, packed)
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md", "outrider.service", "outrider.env", "outrider-web.service", "outrider-web.env", "kubernetes.yaml", "alerts.yml", "dashboard.json"} {
		if source := read(t, filepath.Join(top, filepath.FromSlash(besides[name]))); !bytes.Equal(files[folder+"/"+name], source) {
			t.Errorf("%s is not what the repository has", name)
		}
	}
	licences := string(files[folder+"/THIRD-PARTY-LICENSES"])
	for _, module := range []string{"Go\n==\n\nCopyright", "github.com/lib/pq v", "github.com/ThreeDotsLabs/watermill v", "github.com/ThreeDotsLabs/watermill-sql/v3 v", "github.com/spf13/cobra v"} {
		if !strings.Contains(licences, module) {
			t.Errorf("there is no licence of %s", module)
		}
	}
	program := filepath.Join(t.TempDir(), "outrider")
	if err := os.WriteFile(program, files[folder+"/outrider"], 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "outrider v1.2.3 ") {
		t.Errorf("outrider version says %q: %v", out, err)
	}

	// Again: the old release goes, and the new one is the same.
	if out, err := makeRelease(t, dist); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if again := read(t, filepath.Join(dist, "SHA256SUMS")); string(again) != sums {
		t.Errorf("a second build is another: %s, was %s", again, sums)
	}
	// What is not of a release is not removed.
	mine := filepath.Join(dist, "mine")
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := makeRelease(t, dist); err == nil || !strings.Contains(string(out), "is not from a release") {
		t.Errorf("a folder with other files is taken: %v\n%s", err, out)
	}
	_ = read(t, mine)
}

func TestReleaseRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		version   string
		platforms []string
		want      string
	}{
		{"", []string{"linux/amd64"}, "is not a version"},
		{"v1 -X main.release=v2", []string{"linux/amd64"}, "is not a version"},
		{"../v1", []string{"linux/amd64"}, "is not a version"},
		{"v1", nil, "there is no platform"},
	} {
		dist := filepath.Join(t.TempDir(), "dist")
		if err := release(t.Context(), test.version, dist, test.platforms); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("version %q for %v: %v", test.version, test.platforms, err)
		}
		if _, err := os.Stat(dist); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("version %q for %v: something was made: %v", test.version, test.platforms, err)
		}
	}
}

func TestPackIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	made := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	files := []file{{"outrider", []byte("program"), true}, {"README.md", []byte("text"), false}}
	first, err := pack("v1", files, made)
	if err != nil {
		t.Fatal(err)
	}
	second, err := pack("v1", files, made.In(time.FixedZone("elsewhere", 3600)))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("the archive depends on the place: %v", err)
	}
	archive := open(t, first)
	for _, want := range []struct {
		name string
		mode int64
	}{{"v1/outrider", 0o755}, {"v1/README.md", 0o644}} {
		header, err := archive.Next()
		if err != nil {
			t.Fatal(err)
		}
		if header.Name != want.name || header.Mode != want.mode || !header.ModTime.Equal(made) || header.Uid != 0 || header.Gid != 0 || header.Uname != "" {
			t.Errorf("%s is packed as %+v", want.name, header)
		}
	}
}

func TestLicencesAreAllThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := licencesIn(dir); err == nil {
		t.Error("a module without a licence is linked")
	}
	for _, name := range []string{"LICENCE.txt", "NOTICE", "main.go"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	texts, err := licencesIn(dir)
	if err != nil || len(texts) != 2 || !slices.ContainsFunc(texts, func(text []byte) bool { return string(text) == "NOTICE" }) {
		t.Errorf("%q: %v", texts, err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func open(t *testing.T, packed []byte) *tar.Reader {
	t.Helper()
	decompressor, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	return tar.NewReader(decompressor)
}

func unpack(t *testing.T, packed []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	archive := open(t, packed)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}
