package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completer is any value[T].
type completer interface {
	Type() string
	completions() []string
}

// completions are the words that a flag takes, where it takes no others: its
// parser names them when it refuses one.
func (v *value[T]) completions() []string {
	_, err := v.parse("")
	if e, ok := errors.AsType[*noneOf](err); ok {
		return e.words
	}
	return nil
}

// complete makes shells complete words that are known, and names of files only
// where a file is asked for; cobra would offer them everywhere.
func complete(cmd *cobra.Command) {
	if !strings.Contains(cmd.Use, "FILE") {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	register := func(flag *pflag.Flag) {
		if err := cmd.RegisterFlagCompletionFunc(flag.Name, completionOf(flag)); err != nil {
			panic(err) // the command's own flag, registered once
		}
	}
	cmd.LocalNonPersistentFlags().VisitAll(register)
	cmd.PersistentFlags().VisitAll(register)
	for _, child := range cmd.Commands() {
		complete(child)
	}
}

func completionOf(flag *pflag.Flag) cobra.CompletionFunc {
	v, ok := flag.Value.(completer)
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		switch {
		case flag.Name == configFlag, ok && v.Type() == "FILE":
			return nil, cobra.ShellCompDirectiveDefault
		case ok && v.Type() == "DIR":
			return nil, cobra.ShellCompDirectiveFilterDirs
		case ok:
			return v.completions(), cobra.ShellCompDirectiveNoFileComp
		default:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
}
