package web

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/domain"
)

// functions are what templates call.
func (p *pages) functions() template.FuncMap {
	return template.FuncMap{
		"asset":       assetPath,
		"account":     accountName,
		"path":        func(account domain.AccountID, rest ...any) string { return accountPath(account, joined(rest)) },
		"ago":         func(t time.Time) template.HTML { return ago(p.Now(), t) },
		"lately":      func(t time.Time) template.HTML { return lately(p.Now(), t) },
		"at":          at,
		"count":       countOf,
		"number":      numberOf,
		"percent":     percent,
		"millis":      millis,
		"duration":    durationText,
		"field":       fieldFor,
		"breakable":   breakable,
		"capitalized": upperFirst,
	}
}

// joined makes a path of its parts.
func joined(parts []any) string {
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = fmt.Sprint(part)
	}
	return strings.Join(texts, "/")
}

// accountName is an account for people.
func accountName(account domain.AccountID) string {
	switch account {
	case 0:
		return "All accounts"
	case domain.OperatorAccount:
		return "Operator’s account"
	}
	return "Account " + strconv.FormatInt(int64(account), 10)
}

// ago is a time counted from now, with the time itself for those who point at
// it.
func ago(now, t time.Time) template.HTML {
	if t.IsZero() {
		return "never"
	}
	return timeElement(t, sinceText(now.Sub(t)))
}

// lately is ago, and the same for the whole of the last minute: what is live is
// not sent anew each second for it.
func lately(now, t time.Time) template.HTML {
	if t.IsZero() || now.Sub(t).Abs() >= time.Minute {
		return ago(now, t)
	}
	minute := t.UTC().Truncate(time.Minute)
	return template.HTML(`<time datetime="` + minute.Format(time.RFC3339) + `" title="` + minute.Format("2006-01-02 15:04 UTC") + `">just now</time>`) //nolint:gosec // digits and our own words
}

// sinceText is how long something is ago, or still to come.
func sinceText(d time.Duration) string {
	short := func(n time.Duration, unit string) string {
		text := strconv.FormatInt(int64(n), 10) + unit
		if d < 0 {
			return "in " + text
		}
		return text + " ago"
	}
	const oneDay = 24 * time.Hour
	switch past := d.Abs(); {
	case past < time.Second:
		return "just now"
	case past < time.Minute:
		return short(past/time.Second, " s")
	case past < time.Hour:
		return short(past/time.Minute, " min")
	case past < 2*oneDay:
		return short(past/time.Hour, " h")
	default:
		return short(past/oneDay, " days")
	}
}

// at is a time to the second, in UTC; the script adds the browser's own.
func at(t time.Time) template.HTML {
	if t.IsZero() {
		return "never"
	}
	return timeElement(t, t.UTC().Format("2006-01-02 15:04:05 UTC"))
}

func timeElement(t time.Time, text string) template.HTML {
	// Nothing in it is anybody's text.
	return template.HTML(`<time datetime="` + t.UTC().Format(time.RFC3339Nano) + `" title="` + t.UTC().Format("2006-01-02 15:04:05.000 UTC") + `">` + text + `</time>`) //nolint:gosec // digits and our own words
}

// count is a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(int64(n)) + " " + many
}

func countOf(n any, one, many string) (string, error) {
	switch n := n.(type) {
	case int:
		return count(n, one, many), nil
	case int64:
		return count(int(n), one, many), nil
	}
	return "", fmt.Errorf("%T is not counted", n)
}

// number is a number with its thousands apart.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "−", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

func numberOf(n any) (string, error) {
	switch n := n.(type) {
	case int:
		return number(int64(n)), nil
	case int64:
		return number(n), nil
	}
	return "", fmt.Errorf("%T is not a number", n)
}

// percent is a share of 1. One that is not whole is never shown as 100 % or
// 0 %.
func percent(share float64) string {
	shown := math.Round(share*1000) / 10
	if shown == 100 && share < 1 {
		shown = 99.9
	}
	if shown == 0 && share > 0 {
		shown = 0.1
	}
	return strconv.FormatFloat(shown, 'f', -1, 64) + " %"
}

// millis is a number of milliseconds, in seconds where they are many.
func millis(ms float64) string {
	switch {
	case ms < 10:
		return strconv.FormatFloat(math.Round(ms*10)/10, 'f', -1, 64) + " ms"
	case ms < 1000:
		return strconv.FormatFloat(math.Round(ms), 'f', -1, 64) + " ms"
	case ms < 10_000:
		return strconv.FormatFloat(math.Round(ms/100)/10, 'f', -1, 64) + " s"
	default:
		return strconv.FormatFloat(math.Round(ms/1000), 'f', -1, 64) + " s"
	}
}

// durationText is a duration as forms take it: 7d, 1h30m, 5s.
func durationText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// breakable is a URL that breaks into lines where its parts end.
func breakable(url string) template.HTML {
	var b strings.Builder
	for _, part := range strings.SplitAfter(url, "/") {
		b.WriteString(template.HTMLEscapeString(part))
		if part != "/" && strings.HasSuffix(part, "/") && !strings.HasSuffix(part, ":/") {
			b.WriteString("<wbr>")
		}
	}
	return template.HTML(b.String()) //nolint:gosec // all but <wbr> is escaped
}

// upperFirst begins a text with a capital.
func upperFirst(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return text
	}
	return string(unicode.ToUpper(first)) + text[size:]
}
