package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"gopkg.in/yaml.v3"

	"github.com/outrider-relay/outrider/domain"
)

// FuzzImportLines: each line that is not blank is a webhook or has a problem, and
// one without a problem is written by an export as what changes nothing when it
// is imported again.
func FuzzImportLines(f *testing.F) {
	for _, line := range []string{
		"", "\n\n", "\xef\xbb\xbf{}", "[]", "null", "7", `{"account_id":1,"url":"https://example.com/hook"}`, `{"account_id":1,"url":"https://u:p%2F@example.com/"}` + "\r\n" + `{"account_id":1,"url":"https://example.com/"}`,
		`{"account_id":"1","url":7,"name":[],"subscriptions":{},"inbox_id":0,"state":"gone","timeout":5,"order_hold":"-1s","max_concurrency":1.5,"secret":{},"previous_secret":"x"}`,
		`{"account_id":9,"url":"https://example.com/a?b=c","name":"CRM <1>","subscriptions":["message_created"],"inbox_id":12,"state":"paused","timeout":"2s","max_concurrency":4,"order_hold":"forever","secret":"a-newer-secret","previous_secret":"an-older-secret","previous_secret_until":"2027-01-01T00:00:00Z"}`,
		`{"account_id":9,"url":"https://example.com/","has_credential":true,"state":"disabled","inbox_id":null,"name":null}`, `{"account_id":1,"url":"http://10.0.0.1/"}`, `{"account_id":1,"url":"https://example.com","subscriptions":[]}`,
		`{"account_id":1,"account_id":2,"url":"https://example.com"}`, `{"ACCOUNT_ID":1}`, `{"account_id":1,"url":"https://example.com","secret":{"p":"x","h":{}}}`, `{"account_id":1`, `{"a":1}{"b":2}`,
	} {
		f.Add(line)
	}
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		found, err := readLines(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for line := range strings.SplitSeq(strings.TrimPrefix(text, "\xef\xbb\xbf"), "\n") {
			if len(bytes.TrimSpace([]byte(line))) > 0 {
				lines++
			}
		}
		if len(found) != lines {
			t.Fatalf("%d of %d lines are read", len(found), lines)
		}
		judge(found)
		for i := range found {
			d := &found[i]
			if len(d.problems) > 0 {
				continue
			}
			d.CredentialWithheld, d.At, d.Fresh = false, now, domain.NewSecret([32]byte{1})
			hook := domain.Webhook{}
			events, err := domain.DecideWebhook(hook, d.ImportWebhook)
			if err != nil || len(events) == 0 {
				t.Fatalf("%q has no problem, and is refused: %v", text, err)
			}
			for _, event := range events {
				hook = domain.EvolveWebhook(hook, event)
			}
			hook.ID, hook.AccountID = 1, d.AccountID
			var line bytes.Buffer
			if err := encode(&line, export(&hook, true, now)); err != nil {
				t.Fatal(err)
			}
			again, err := readLines(&line)
			if err != nil || len(again) != 1 {
				t.Fatalf("%d webhooks are read where one was written: %v", len(again), err)
			}
			judge(again)
			if len(again[0].problems) > 0 {
				t.Fatalf("%q is exported with problems: %q", text, again[0].problems)
			}
			again[0].At = now
			if events, err := domain.DecideWebhook(hook, again[0].ImportWebhook); err != nil || len(events) > 0 || again[0].AccountID != hook.AccountID {
				t.Fatalf("%q is exported, and imported again as %+v: %v", text, events, err)
			}
		}
	})
}

// FuzzConfigFile: a file of settings gives known ones or problems with their
// place, none of which tells a password; and what is written as YAML is read as
// it was.
func FuzzConfigFile(f *testing.F) {
	for _, file := range []string{
		"", "---\n", "x", "- a\n", "listen: 127.0.0.1:80\n", "listen: [a, b]\n", "listen: {a: b}\n", "listen: &a x\nrelay_name: *a\n", "allow_cidrs: &a [*a]\n", "<<: {listen: x}\n", "listen: x\nlisten: y\n",
		"? [a]\n: b\n", "max_in_flight: 0x10\nretain_log: ~\n", "retain_payloads: 30d\n...\nmore: x\n", "\xff", "listen: \"\\x00\"\n", "\t", "a: b: c", "*x: y\n", "listen: !!binary aGk=\n", "%YAML 9.9\n---\n",
	} {
		f.Add(file, "10.0.0.0/8")
	}
	f.Add("listen: x", "null")
	f.Add("listen: x", " # x\n- : \t")
	const password = "hunter2-hunter2"
	f.Fuzz(func(t *testing.T, file, text string) {
		known := func(key string) bool {
			return slices.ContainsFunc(settings, func(s *setting) bool { return s.key == key })
		}
		for _, content := range []string{file, "database_url: postgres://user:" + password + "@host/db\n" + file} {
			values, problems := parseFile("settings.yaml", []byte(content))
			for key := range values {
				if !known(key) {
					t.Fatalf("%q has the setting %q", content, key)
				}
			}
			for _, problem := range problems {
				if !strings.HasPrefix(problem, "settings.yaml") || strings.Contains(problem, password) && !strings.Contains(file, "hunter2") {
					t.Fatalf("%q has the problem %q", content, problem)
				}
			}
		}
		for _, s := range settings {
			for _, value := range []string{text, "postgres://user:" + password + "@" + text} {
				if err := s.set(&config{}, value); s == databaseURL && err != nil && strings.Contains(err.Error(), password) {
					t.Fatalf("%q is refused with its password: %v", value, err)
				}
			}
		}
		if !utf8.ValidString(text) {
			return // YAML has no such text
		}
		written, err := yaml.Marshal(map[string]string{"relay_name": text})
		if err != nil {
			t.Fatal(err)
		}
		if values, problems := parseFile("settings.yaml", written); len(problems) > 0 || values["relay_name"].text != text {
			t.Fatalf("%q is written as %q, and read as %q, %q", text, written, values["relay_name"].text, problems)
		}
	})
}

// FuzzEventIDs: each id is there once, in whatever form it is listed.
func FuzzEventIDs(f *testing.F) {
	const id = "01989d5e-7f3a-8c21-9d4b-6a1f0e2b3c4d"
	for _, text := range []string{
		"", id, id + "\n" + id, "{" + id + "}", `{"event_id":"` + id + `","x":1}`, "urn:uuid:" + id, strings.ReplaceAll(id, "-", ""), strings.ToUpper(id) + "\r\n", `{"event_id":null}`, `{`, "00000000-0000-0000-0000-000000000000", "x",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ids, err := eventIDs(strings.NewReader(text))
		if err != nil {
			if ids != nil {
				t.Fatalf("%q gives %v beside the error %v", text, ids, err)
			}
			return
		}
		listed := ""
		for i, id := range ids {
			if id == uuid.Nil || slices.Contains(ids[:i], id) {
				t.Fatalf("%q gives %v", text, ids)
			}
			listed += id.String() + "\n"
		}
		if again, err := eventIDs(strings.NewReader(listed)); err != nil || !slices.Equal(again, ids) {
			t.Fatalf("%q gives %v, and those %v: %v", text, ids, again, err)
		}
	})
}

// FuzzTimes: durations and times that people write are never negative, and are
// read again as they are printed.
func FuzzTimes(f *testing.F) {
	for _, text := range []string{"", "0", "30s", "2h45m", "7d", "65535d", "65536d", "-1s", "1e9h", "9223372036854775807ns", "2562047h47m16.854775807s", "forever", "2026-07-01T12:00:00Z", "2026-07-01T12:00:00.123456789+14:00", "d", "1d1d"} {
		f.Add(text)
	}
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	a := &app{now: func() time.Time { return now }}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parseDuration(text); err == nil {
			if again, err := parseDuration(d.String()); d < 0 || err != nil || again != d {
				t.Fatalf("%q is %s, and that %s: %v", text, d, again, err)
			}
		}
		if hold, err := parseHold(text); err == nil {
			if again, err := parseHold(holdText(hold)); err != nil || again != hold {
				t.Fatalf("%q is a hold of %s, written as %q: %v", text, hold, holdText(hold), err)
			}
		}
		if at, err := a.parseTime(text); err == nil {
			if _, duration := parseDuration(text); duration == nil && at.After(now) {
				t.Fatalf("%q counts back to %s", text, at)
			}
		} else if !at.IsZero() {
			t.Fatalf("%q is %s beside the error %v", text, at, err)
		}
	})
}
