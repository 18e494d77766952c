package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// file is one of an archive.
type file struct {
	name    string
	content []byte
	program bool
}

// besides is what an archive has from the repository, beside the program: what
// there is to read, and what runs the program. Images are built from source.
var besides = map[string]string{
	"LICENSE":              "LICENSE",
	"README.md":            "README.md",
	"CHANGELOG.md":         "CHANGELOG.md",
	"outrider.service":     "cmd/outrider/deploy/outrider.service",
	"outrider.env":         "cmd/outrider/deploy/outrider.env",
	"outrider-web.service": "cmd/outrider/deploy/outrider-web.service",
	"outrider-web.env":     "cmd/outrider/deploy/outrider-web.env",
	"kubernetes.yaml":      "cmd/outrider/deploy/kubernetes.yaml",
	"alerts.yml":           "cmd/outrider/deploy/prometheus/alerts.yml",
	"dashboard.json":       "cmd/outrider/deploy/grafana/outrider.json",
}

// contents are the files of a platform's archive, by name.
func contents(ctx context.Context, version, goos, goarch string) ([]file, error) {
	binary, err := build(ctx, version, goos, goarch)
	if err != nil {
		return nil, err
	}
	files := []file{{"outrider", binary, true}}
	for name, source := range besides {
		content, err := os.ReadFile(filepath.FromSlash(source))
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, content, false})
	}
	licences, err := licences(ctx, goos, goarch)
	if err != nil {
		return nil, err
	}
	files = append(files, file{"THIRD-PARTY-LICENSES", licences, false})
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// linkedFormat lists the modules that are linked into the program; Go itself
// comes without a module.
const linkedFormat = `{{if .Standard}}{{else if not .Module.Main}}{{.Module.Path}} {{.Module.Version}}` + "\t" + `{{.Module.Dir}}{{end}}`

var licenceFile = regexp.MustCompile(`(?i)^(licen[sc]e|copying|notice)`)

// licences are the texts that have to come with a binary, which are those of
// Go and of each module that is linked into it.
func licences(ctx context.Context, goos, goarch string) ([]byte, error) {
	root, err := goTool(ctx, goos, goarch, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	linked, err := goTool(ctx, goos, goarch, "list", "-deps", "-f", linkedFormat, program)
	if err != nil {
		return nil, err
	}
	lines := []string{"Go\t" + strings.TrimSpace(string(root))}
	for line := range strings.Lines(string(linked)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	var all bytes.Buffer
	for _, line := range slices.Compact(lines) {
		module, dir, _ := strings.Cut(line, "\t")
		texts, err := licencesIn(dir)
		if err != nil {
			return nil, fmt.Errorf("the licence of %s: %w", module, err)
		}
		fmt.Fprintf(&all, "%s\n%s\n\n", module, strings.Repeat("=", len(module)))
		for _, text := range texts {
			fmt.Fprintf(&all, "%s\n\n", bytes.TrimSpace(text))
		}
	}
	return all.Bytes(), nil
}

// licencesIn reads the licence and notice of a module.
func licencesIn(dir string) (texts [][]byte, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !licenceFile.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name())) //nolint:gosec // a module of ours
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		// A distribution's Go may keep it elsewhere; without it nothing may be
		// given away.
		return nil, errors.New("there is none in " + dir)
	}
	return texts, nil
}
