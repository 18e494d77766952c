// Command release builds the archives of a release, with their SHA256SUMS, from
// the top of the repository:
//
//	go run ./cmd/outrider/deploy/release -version v1.2.3 linux/amd64 darwin/arm64
//
// An archive is the same to the byte wherever it is built from the same commit
// with the same Go: paths, times, owners and the compression are fixed.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	version := flag.String("version", "", "what `outrider version` says, like v1.2.3")
	dist := flag.String("dist", "dist", "folder to make the archives in; it is emptied before")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := release(ctx, *version, *dist, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1) //nolint:gocritic // the signals end with the process
	}
}

const sumsFile = "SHA256SUMS"

var (
	// versionForm is what may be in the names of files and in -ldflags.
	versionForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)
	platformForm = regexp.MustCompile(`^([a-z0-9]+)/([a-z0-9]+)$`)
)

// release makes one archive for each platform.
func release(ctx context.Context, version, dist string, platforms []string) error {
	if !versionForm.MatchString(version) {
		return fmt.Errorf("%q is not a version; give one like -version v1.2.3", version)
	}
	if len(platforms) == 0 {
		return errors.New("there is no platform; give some like linux/amd64")
	}
	made, err := commitTime(ctx)
	if err != nil {
		return err
	}
	if err := empty(dist); err != nil {
		return err
	}
	var sums strings.Builder
	for _, platform := range platforms {
		match := platformForm.FindStringSubmatch(platform)
		if match == nil {
			return fmt.Errorf("%q is not a platform; write it like linux/amd64", platform)
		}
		name := "outrider-" + version + "-" + match[1] + "-" + match[2]
		files, err := contents(ctx, version, match[1], match[2])
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		packed, err := pack(name, files, made)
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		fmt.Fprintf(&sums, "%x  %s.tar.gz\n", sha256.Sum256(packed), name)
		if err := os.WriteFile(filepath.Join(dist, name+".tar.gz"), packed, 0o644); err != nil { //nolint:gosec // for everyone
			return err
		}
	}
	fmt.Print(sums.String())
	return os.WriteFile(filepath.Join(dist, sumsFile), []byte(sums.String()), 0o644) //nolint:gosec // for everyone
}

// empty makes the folder, and removes the release before. A folder with
// anything else in it is left as it is.
func empty(dist string) error {
	if err := os.MkdirAll(dist, 0o755); err != nil { //nolint:gosec // for everyone
		return err
	}
	entries, err := os.ReadDir(dist)
	if err != nil {
		return err
	}
	old := func(e os.DirEntry) bool {
		return e.Name() == sumsFile || strings.HasPrefix(e.Name(), "outrider-") && strings.HasSuffix(e.Name(), ".tar.gz")
	}
	if i := slices.IndexFunc(entries, func(e os.DirEntry) bool { return !old(e) }); i >= 0 {
		return fmt.Errorf("%s is not from a release; remove it, or give another folder by -dist", filepath.Join(dist, entries[i].Name()))
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dist, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// commitTime is what all files of a release are dated. Where there is no git
// repository, SOURCE_DATE_EPOCH tells it, as for other tools.
func commitTime(ctx context.Context) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("ask git for the commit's time: %w; without git set SOURCE_DATE_EPOCH", err)
		}
		text = string(out)
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("the commit's time: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// build gives the program for a platform. Nothing of this machine gets into
// it: no paths, no C library.
func build(ctx context.Context, version, goos, goarch string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "outrider-release-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "outrider")
	if _, err := goTool(ctx, goos, goarch, "build", "-trimpath", "-ldflags", "-s -w -X main.release="+version, "-o", path, program); err != nil {
		return nil, err
	}
	return os.ReadFile(path) //nolint:gosec // a path of our own making
}

// program is what is released.
const program = "./cmd/outrider"

// goTool runs the go command for a platform and gives what it prints.
func goTool(ctx context.Context, goos, goarch string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the platform was checked
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch,
		// What else would make another program of the same source.
		"GOFLAGS=-buildvcs=auto", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=")
	out, err := cmd.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, e.Stderr)
	}
	return out, err
}
