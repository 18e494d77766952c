package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
)

// secretVariable holds a secret to verify with: a flag's value would be seen
// in the list of processes.
const secretVariable = "OUTRIDER_WEBHOOK_SECRET"

var diagnosisColumns = []column[httpsend.Diagnosis]{
	{name: "scheme", value: func(d *httpsend.Diagnosis) any { return d.Scheme }},
	{name: "present", value: func(d *httpsend.Diagnosis) any { return d.Present }},
	{name: "verified", value: func(d *httpsend.Diagnosis) any { return d.Verified }},
	{name: "problem", value: func(d *httpsend.Diagnosis) any { return orNil(d.Problem) }},
	{name: "advice", value: func(d *httpsend.Diagnosis) any { return orNil(d.Advice) }},
}

func (a *app) verifyCommand() *cobra.Command {
	var (
		headers              []string
		secretFile, bodyFile string
		at                   time.Time
		format               string
	)
	cmd := &cobra.Command{
		Use:     "verify-signature --header 'NAME: VALUE' ... --body FILE",
		Short:   "Say whether a captured request is genuine, and if not, why",
		GroupID: groupHistory,
		Long: `Verify a request that a receiver got, under Standard Webhooks and under Chatwoot's
scheme, and say what is wrong where a signature does not match: a body that was
changed on the way, a secret in another spelling, a timestamp that is too old.

The secret comes from a file, or from the variable ` + secretVariable + `.
It needs no database. Exit code 0 says that a receiver would take the request: it is
signed, and every signature on it is right.`,
		Example: `  outrider verify-signature --secret-file secret.txt --body body.json --at 2026-07-01T12:00:00Z \
    --header 'webhook-id: …' --header 'webhook-timestamp: …' --header 'webhook-signature: v1,…'`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flagOf(flags, &secretFile, "secret-file", "FILE", "", "file with the webhook's secret ["+secretVariable+": the secret itself]", anyText)
	flags.StringArrayVar(&headers, "header", nil, "header of the request, like 'webhook-id: …'; again for more")
	flagOf(flags, &bodyFile, "body", "FILE", "", "file with the raw body; - for standard input", anyText)
	flagOf(flags, &at, "at", "TIME", "", "judge the timestamp as of then: RFC 3339, or a duration that counts back from now (default: now)", a.parseTime)
	thingFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := flagCheck(cmd)
		c.none(args)
		c.need("body", "header")
		secret, err := a.verifySecret(secretFile)
		if err != nil {
			c.add("%v", err)
		}
		header := http.Header{}
		for i, line := range headers {
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				c.add("--header: the value %d is not like 'NAME: VALUE'", i+1)
				continue
			}
			header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
		if err := c.err(); err != nil {
			return err
		}
		body, err := a.readBody(bodyFile)
		if err != nil {
			return err
		}
		if at.IsZero() {
			at = a.now()
		}
		return a.tellDiagnoses(format, httpsend.Diagnose(secret, header, body, at))
	}
	return cmd
}

// verifySecret reads the secret. Its form is not judged: a wrong one is what
// may be looked for.
func (a *app) verifySecret(file string) (domain.Secret, error) {
	text := a.env(secretVariable)
	if file != "" {
		content, err := os.ReadFile(file) //nolint:gosec // the file that the user names
		if err != nil {
			return domain.Secret{}, fmt.Errorf("--secret-file: %w", err)
		}
		text = strings.TrimRight(string(content), "\r\n") // as editors and echo end a file
	}
	if text == "" {
		return domain.Secret{}, fmt.Errorf("the secret is missing: give --secret-file, or set %s", secretVariable)
	}
	return domain.CredentialFromText(text), nil
}

func (a *app) readBody(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(a.in)
	}
	return os.ReadFile(file) //nolint:gosec // the file that the user names
}

func (a *app) tellDiagnoses(format string, found []httpsend.Diagnosis) error {
	verified, wrong := 0, 0
	for i := range found {
		d := &found[i]
		switch {
		case d.Verified:
			verified++
		case d.Present:
			wrong++
		}
		if format == formatJSON {
			if err := writeObject(a.out, diagnosisColumns, d); err != nil {
				return err
			}
			continue
		}
		p := a.paint()
		mark, tint, text := failed, bad, d.Problem
		if d.Verified {
			mark, tint, text = succeeded, good, "verifies"
		} else if !d.Present {
			mark, tint = later, faint
		}
		fmt.Fprintf(a.out, "%s %-17s  %s\n", p.as(tint, mark), d.Scheme, printable(text))
		if d.Advice != "" {
			fmt.Fprintf(a.out, "  %-17s  %s\n", "", printable(d.Advice))
		}
	}
	switch {
	case wrong > 0:
		return &failure{"the request does not verify", ""}
	case verified == 0:
		return &failure{"the request is not signed", "its headers should have webhook-signature, or X-Chatwoot-Signature"}
	}
	return nil
}
