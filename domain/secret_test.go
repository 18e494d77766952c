package domain_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/domain"
)

// standardSecret is the key of the Standard Webhooks test vectors, opaqueSecret
// has the form that Chatwoot draws.
const (
	standardSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	opaqueSecret   = "pNU2hC8kqXw5VbTz9sDfGj3m"
)

func TestParseSecret(t *testing.T) {
	t.Parallel()
	encode := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for _, c := range []struct {
		name, text string
		problem    string // "" where it is accepted
	}{
		{"Standard", standardSecret, ""},
		{"StandardShortest", encode(16), ""},
		{"StandardLongest", encode(512), ""},
		{"StandardTooShort", encode(15), "15 bytes"},
		{"StandardTooLong", encode(513), "513 bytes"},
		{"StandardEmpty", "whsec_", "0 bytes"},
		{"StandardWithoutPadding", "whsec_" + base64.RawStdEncoding.EncodeToString(make([]byte, 16)), "base64"},
		{"StandardURLAlphabet", "whsec_" + base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 18)), "base64"},
		{"StandardWithLineBreak", "whsec_MfKQ9r8GKYqrTwjU\nPD8ILPZIo2LaLaSw", "printable"},
		{"StandardWithTrailingLineBreak", standardSecret + "\r\n", "printable"},
		{"StandardWithSpace", "whsec_ MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "printable"},
		{"NotBase64", "whsec_!", "base64"},
		{"Opaque", opaqueSecret, ""},
		{"OpaqueURLSafe", "Zk1b-9_XyQm3vT7uR2wE5aLp0oC8dHgJ", ""},
		{"OpaqueShortest", "test-sec", ""},
		{"OpaqueTooShort", "test-se", "7 characters"},
		{"OpaqueLongest", strings.Repeat("x", 512), ""},
		{"OpaqueTooLong", strings.Repeat("x", 513), "513 characters"},
		{"OtherCaseIsOpaque", "WHSEC_!", "7 characters"},
		{"Empty", "", "0 characters"},
		{"EncryptedByRails", `{"p":"n7J0/ol+a7DRMeaE","h":{"iv":"DXZMDWUKfp3bg/Yu","at":"X1/YjMHbHD4talgF9dt61A=="}}`, "encrypted"},
		{"JSONIsOpaque", `{"p":"n7J0/ol+a7DRMeaE"}`, ""},
		{"Space", "eight or more", "printable"},
		{"Tab", "eight\tor-more", "printable"},
		{"NUL", "eight\x00or-more", "printable"},
		{"Delete", "eight\x7for-more", "printable"},
		{"NotASCII", "schlüssel", "printable"},
		{"NotUTF8", "eight\xffor-more", "printable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			secret, err := domain.ParseSecret(c.text)
			if c.problem == "" {
				if err != nil || secret.Reveal() != c.text || secret.IsZero() {
					t.Errorf("got %q, %v", secret.Reveal(), err)
				}
				return
			}
			if err == nil || !secret.IsZero() {
				t.Fatalf("accepted as %q, %v", secret.Reveal(), err)
			}
			if !strings.Contains(err.Error(), c.problem) {
				t.Errorf("error %q does not say %q", err, c.problem)
			}
			if len(c.text) > 7 && strings.Contains(err.Error(), c.text) {
				t.Errorf("error %q quotes the secret", err)
			}
		})
	}
}

func TestSecretKeys(t *testing.T) {
	t.Parallel()
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(standardSecret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text, standardText string
		key                      []byte
	}{
		{"Standard", standardSecret, standardSecret, decoded},
		{"Opaque", opaqueSecret, "whsec_cE5VMmhDOGtxWHc1VmJUejlzRGZHajNt", []byte(opaqueSecret)},
		{"OpaqueThatLooksLikeBase64", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_TWZLUTlyOEdLWXFyVHdqVVBEOElMUFpJbzJMYUxhU3c=", []byte("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			secret, err := domain.ParseSecret(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := secret.StandardKey(); !bytes.Equal(got, c.key) {
				t.Errorf("key %x, want %x", got, c.key)
			}
			if got := secret.StandardText(); got != c.standardText {
				t.Errorf("standard text %s, want %s", got, c.standardText)
			}
			// A library that reads the standard text has the same key.
			shown, err := domain.ParseSecret(secret.StandardText())
			if err != nil || !bytes.Equal(shown.StandardKey(), secret.StandardKey()) {
				t.Errorf("the standard text gives the key %x, %v", shown.StandardKey(), err)
			}
		})
	}
}

func TestNewSecret(t *testing.T) {
	t.Parallel()
	var random [32]byte
	for i := range random {
		random[i] = byte(i)
	}
	secret := domain.NewSecret(random)
	if got, want := secret.Reveal(), "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !bytes.Equal(secret.StandardKey(), random[:]) {
		t.Errorf("key %x", secret.StandardKey())
	}
	if parsed, err := domain.ParseSecret(secret.Reveal()); err != nil || parsed != secret {
		t.Errorf("it is not accepted again: %v", err)
	}
}

func TestZeroSecret(t *testing.T) {
	t.Parallel()
	var secret domain.Secret
	if secret != domain.CredentialFromText("") || !secret.IsZero() || secret.Reveal() != "" || len(secret.StandardKey()) != 0 {
		t.Errorf("zero: %t, %q, %q", secret.IsZero(), secret.Reveal(), secret.StandardKey())
	}
}

// No way of printing shows a secret, alone or within what has one.
func TestSecretIsMasked(t *testing.T) {
	t.Parallel()
	for _, text := range []string{standardSecret, opaqueSecret, "user:" + opaqueSecret} {
		secret := domain.CredentialFromText(text)
		type worker struct{ webhook domain.Webhook } // fmt calls no method of an unexported field
		headers := domain.HeadersFromText("X-Key: " + text + "\n")
		webhook := domain.Webhook{ID: 3, Secret: secret, PreviousSecret: secret, Credential: secret, Headers: headers}
		values := map[string]any{
			"Secret": secret, "Pointer": &secret, "Slice": []domain.Secret{secret}, "Map": map[string]domain.Secret{"s": secret},
			"Webhook": webhook, "WebhookPointer": &webhook, "Any": []any{secret}, "Unexported": worker{webhook}, "UnexportedPointer": &worker{webhook},
			"Event": domain.WebhookSecretRotated{Secret: secret, Previous: secret}, "Command": domain.RotateSecret{Secret: secret},
			"Headers": headers, "HeadersPointer": &headers, "Header": domain.NewHeader("X-Key", text), "Update": domain.UpdateWebhook{Headers: []domain.Header{domain.NewHeader("X-Key", text)}},
		}
		printed := map[string]string{}
		for name, value := range values {
			for _, verb := range []string{"%v", "%s", "%q", "%+v", "%#v", "%x", "%X", "%d", "%t", "%10s", "%T"} {
				printed[name+" "+verb] = fmt.Sprintf(verb, value)
			}
			printed[name+" Sprint"] = fmt.Sprint(value)
			printed[name+" error"] = fmt.Errorf("webhook: %v", value).Error()
			data, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			printed[name+" JSON"] = string(data)
			for format, handler := range map[string]func(*bytes.Buffer) slog.Handler{
				"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
				"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
			} {
				var out bytes.Buffer
				slog.New(handler(&out)).Info("webhook", "value", value, slog.Group("group", "value", value))
				printed[name+" slog "+format] = out.String()
			}
		}
		key, base := fmt.Sprintf("%x", text), base64.StdEncoding.EncodeToString([]byte(text))
		tail := text[len(text)-8:]
		for how, got := range printed {
			for _, leak := range []string{text, tail, key, strings.ToUpper(key), base} {
				if strings.Contains(got, leak) {
					t.Errorf("%s shows %q: %s", how, leak, got)
				}
			}
		}
		for _, verb := range []string{"%v", "%s", "%q", "%+v", "%#v"} {
			if got := fmt.Sprintf(verb, secret); got != "[secret]" {
				t.Errorf("%s gives %q", verb, got)
			}
		}
		if data, err := json.Marshal(secret); err != nil || string(data) != `"[secret]"` {
			t.Errorf("JSON %s, %v", data, err)
		}
	}
}
