package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
)

// configureByChatwootsAPI: the README's requests are answered by outrider web,
// as the user that it has there.
func (s *readmeStory) configureByChatwootsAPI() {
	s.t.Helper()
	p := startWeb(s.t, s.dsn(readmeDatabase, "web_app"))
	p.awaitReady(s.t)
	b := s.take("sh chatwoot", 1)[0]
	_, command, _ := strings.Cut(b.text, "# from: outrider ")
	command, _, _ = strings.Cut(command, "\n")
	token, ok := newCLI(s.t, s.dsn(readmeDatabase, "ops")).object(shellWords(command)...)["token"].(string)
	if !ok {
		s.t.Fatalf("%s: outrider %s prints no token", b.name(), command)
	}
	s.chatwoot(b, "http://"+listenLine.FindStringSubmatch(p.log.String())[1], token)
	p.signal(syscall.SIGTERM)
}

// chatwoot runs the README's requests to Chatwoot's API, as curl would make
// them, with a token of the database.
func (s *readmeStory) chatwoot(b *readmeBlock, base, token string) {
	s.t.Helper()
	values := map[string]string{"OUTRIDER": base, "TOKEN": token}
	var statuses []int
	var answers []string
	for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
		words := shellWords(line)
		if len(words) == 0 {
			continue
		}
		if name, value, ok := strings.Cut(words[0], "="); ok && words[0] != "curl" {
			if values[name] == "" {
				s.t.Errorf("%s: nobody has %s=%s", b.name(), name, value)
			}
			continue
		}
		status, answer := s.curl(b, words, func(name string) string { return values[name] })
		statuses, answers = append(statuses, status), append(answers, answer)
		var made struct {
			Payload struct {
				Webhook struct{ ID json.Number }
			}
		}
		if json.Unmarshal([]byte(answer), &made) == nil && made.Payload.Webhook.ID != "" {
			values["WEBHOOK"] = made.Payload.Webhook.ID.String()
		}
	}
	if len(answers) != 4 {
		s.t.Fatalf("%s: %d requests were made, want 4", b.name(), len(answers))
	}
	for i, want := range []string{`"subscriptions":["message_created"],"secret":"whsec_`, `"name":"CRM","url":"https://crm.example.com/hooks"`, `"subscriptions":["message_created","conversation_created"]`, ""} {
		if statuses[i] != http.StatusOK || !strings.Contains(answers[i], want) || want == "" && answers[i] != "" {
			s.t.Errorf("%s: answer %d is %d %s", b.name(), i+1, statuses[i], answers[i])
		}
	}
	if n := s.count(`SELECT count(*) FROM audit.webhook_changes WHERE webhook_id = $1 AND actor LIKE 'token % (CRM sync)'`, values["WEBHOOK"]); n != 3 {
		s.t.Errorf("%s: the history has %d changes by the token, want 3", b.name(), n)
	}
}

// curl makes the request that a line of words stands for.
func (s *readmeStory) curl(b *readmeBlock, words []string, value func(string) string) (status int, answer string) {
	s.t.Helper()
	if words[0] != "curl" {
		s.t.Fatalf("%s: the test cannot run %q", b.name(), words)
	}
	method, address, body := "", "", ""
	header := http.Header{}
	for i := 1; i < len(words); i++ {
		word := os.Expand(words[i], value)
		if !strings.HasPrefix(word, "-") {
			address = word
			continue
		}
		i++
		argument := os.Expand(words[i], value)
		switch word {
		case "-X":
			method = argument
		case "-d":
			body = argument
		case "-H":
			name, text, _ := strings.Cut(argument, ": ")
			header[name] = []string{text}
		default:
			s.t.Fatalf("%s: the test does not know curl %s", b.name(), word)
		}
	}
	if method == "" {
		method = http.MethodGet
		if body != "" {
			method = http.MethodPost
		}
	}
	request, err := http.NewRequestWithContext(s.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
