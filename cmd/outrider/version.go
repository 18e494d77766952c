package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set by the linker for released binaries: -X main.release=v1.2.3.
var release string

// build says what this binary is.
type build struct{ release, revision, modified string }

// version reads it from the linker's text, else from what the go command noted.
func version() build {
	b := build{release: release}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		if b.release == "" {
			b.release = "(unknown)"
		}
		return b
	}
	if b.release == "" {
		b.release = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			b.modified = s.Value
		}
	}
	return b
}

// text is the version on one line.
func (b build) text() string {
	text := b.release
	if b.revision != "" {
		text += " " + b.revision
		if b.modified == "true" {
			text += "+changes"
		}
	}
	return fmt.Sprintf("%s (%s, %s/%s)", text, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version this is",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			c := &check{cmd: cmd}
			c.none(args)
			if err := c.err(); err != nil {
				return err
			}
			fmt.Fprintln(a.out, "outrider", version().text())
			return nil
		},
	}
}
