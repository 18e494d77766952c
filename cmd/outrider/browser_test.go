package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a page of Chromium, as people have it open.
type browser struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp keeps the page in it
}

// chromiums are its names, first Debian's.
var chromiums = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// newBrowser starts Chromium, with a profile of its own. The test fails of what
// pages write to the console as errors, and of what their policy refuses.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	program := ""
	for _, name := range chromiums {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Fatalf("none of %s is in PATH; make browser installs it", strings.Join(chromiums, ", "))
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(program))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which Chromium has not for root
	}
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	ctx, end := chromedp.NewContext(allocator)
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	messages := chromedp.Console(ctx)
	var listening sync.WaitGroup
	listening.Go(func() {
		for message, err := range messages {
			if err != nil {
				return
			}
			refused := message.Source == "network" && strings.Contains(message.Text, "status of 4") // which tests ask for
			if (message.Type == "error" || message.IsException()) && !refused {
				t.Errorf("the console of %s: %s", message.URL, message)
			}
		}
	})
	t.Cleanup(func() { end(); listening.Wait(); stop() })
	b.size(1280, 900)
	b.dark(false)
	return b
}

// limited gives steps a time that only a hang takes.
func (b *browser) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.ctx, time.Minute)
}

// do carries out steps.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := b.limited()
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%v; the page %s says:\n%s", err, b.asks("location.href"), b.text())
	}
}

// asks gives the text that an expression has in the page, "" where it cannot
// tell, as while another page comes.
func (b *browser) asks(expression string) string {
	ctx, cancel := b.limited()
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		return ""
	}
	return text
}

func (b *browser) text() string { return b.asks("document.body.innerText") }

// call sends a command of the browser's protocol.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := b.limited()
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// size gives the page a window, in CSS pixels.
func (b *browser) size(width, height int64) {
	b.t.Helper()
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600})
}

// dark has the page look as where people want it dark, or light.
func (b *browser) dark(dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme},
		{Name: "prefers-reduced-motion", Value: "reduce"}, // else axe-core sees colours on their way
	}})
}

// script switches JavaScript on or off, from the next page on.
func (b *browser) script(on bool) {
	b.t.Helper()
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on})
}

func (b *browser) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// control finds what people click on by what it is called.
func control(name string) string {
	return fmt.Sprintf(`//*[self::a or self::button or self::summary][normalize-space(.)=%[1]q or @aria-label=%[1]q]`, name)
}

// click clicks on the link or button with a name.
func (b *browser) click(name string) {
	b.t.Helper()
	b.do(chromedp.Click(control(name), chromedp.NodeVisible))
}

// field finds an input by how its label begins.
func field(label string) string {
	return fmt.Sprintf(`//*[self::input or self::textarea or self::select][@id=//label[starts-with(normalize-space(.),%[1]q)]/@for] | //label[starts-with(normalize-space(.),%[1]q)]//input`, label)
}

// fill types into the field with a label, in place of what is there.
func (b *browser) fill(label, value string) {
	b.t.Helper()
	b.do(chromedp.Clear(field(label)), chromedp.SendKeys(field(label), value))
}

// tick clicks on the box with a label.
func (b *browser) tick(label string) {
	b.t.Helper()
	b.do(chromedp.Click(field(label)))
}

// shows waits until the page has the texts.
func (b *browser) shows(texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		until(b.t, text, func() (bool, string) {
			said := b.text()
			return strings.Contains(strings.ToLower(said), strings.ToLower(text)), b.asks("location.href") + " says:\n" + said
		})
	}
}

// at waits until the page's path fits, and gives it.
func (b *browser) at(fits func(path string) bool) (path string) {
	b.t.Helper()
	until(b.t, "another page", func() (bool, string) {
		path = b.asks("location.pathname")
		return fits(path), path
	})
	return path
}

// serious is what axe-core finds and people stumble over.
type serious struct {
	ID, Impact, Help string
	Nodes            []struct {
		Target         []any
		HTML           string
		FailureSummary string
	}
}

// accessible has axe-core look at the page, in light, and in dark on a phone.
func (b *browser) accessible() {
	b.t.Helper()
	library, err := axe()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, look := range []struct {
		name  string
		dark  bool
		width int64
	}{{"light", false, 1280}, {"dark, on a phone", true, 390}} {
		b.size(look.width, 900)
		b.dark(look.dark)
		call(b, runtime.Evaluate, runtime.EvaluateParams{Expression: library}) // whatever the page's policy lets it load
		ctx, cancel := b.limited()
		found, err := chromedp.Run(ctx, chromedp.Evaluate[string](`axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations))`, chromedp.EvalAwaitPromise))
		cancel()
		if err != nil {
			b.t.Fatal(err)
		}
		var violations []serious
		if err := json.Unmarshal([]byte(found), &violations); err != nil {
			b.t.Fatal(err)
		}
		for _, v := range violations {
			if v.Impact == "serious" || v.Impact == "critical" {
				for _, n := range v.Nodes {
					b.t.Errorf("%s, %s: %s (%s): %s\n%s", b.asks("location.href"), look.name, v.Help, v.ID, n.HTML, n.FailureSummary)
				}
			}
		}
		if b.asks("String(document.documentElement.scrollWidth > document.documentElement.clientWidth)") != "false" {
			b.t.Errorf("%s, %s: the page is wider than its window", b.asks("location.href"), look.name)
		}
	}
	b.size(1280, 900)
	b.dark(false)
}

// screenshots names the folder for pictures of the pages; none are made where
// it is empty.
const screenshots = "OUTRIDER_SCREENSHOTS"

// picture keeps what the page looks like, in light and dark, where that is wanted.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv(screenshots)
	if dir == "" {
		return
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	for _, look := range []struct {
		suffix string
		dark   bool
		width  int64
	}{{"", false, 1280}, {"-dark", true, 1280}, {"-phone", false, 390}} {
		b.size(look.width, 800)
		b.dark(look.dark)
		ctx, cancel := b.limited()
		png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		cancel()
		if err != nil {
			b.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+look.suffix+".png"), png, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
	b.size(1280, 900)
	b.dark(false)
}

// The release of axe-core that looks at the pages, with the digest that npm
// gives for it.
const (
	axeURL    = "https://registry.npmjs.org/axe-core/-/axe-core-4.14.1.tgz"
	axeDigest = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
	axeFile   = "package/axe.min.js"
)

// axe gives axe-core's script, from npm or from where it was kept.
var axe = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	kept := filepath.Join(cache, "outrider", filepath.Base(axeURL))
	archive, err := os.ReadFile(kept)
	if err != nil || !isAxe(archive) {
		if archive, err = fetchAxe(); err != nil {
			return "", fmt.Errorf("axe-core, which looks for what keeps people from using a page, cannot be fetched from %s: %w", axeURL, err)
		}
		if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(kept, archive, 0o600); err != nil {
			return "", err
		}
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return "", err
	}
	for files := tar.NewReader(unzipped); ; {
		file, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("%s in axe-core's archive: %w", axeFile, err)
		}
		if file.Name == axeFile {
			script, err := io.ReadAll(files)
			return string(script), err
		}
	}
})

func isAxe(archive []byte) bool {
	digest := sha512.Sum512(archive)
	return base64.StdEncoding.EncodeToString(digest[:]) == axeDigest
}

func fetchAxe() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, axeURL, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	archive, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return nil, err
	case response.StatusCode != http.StatusOK:
		return nil, errors.New(response.Status)
	case !isAxe(archive):
		return nil, errors.New("what came has another digest")
	}
	return archive, nil
}
