package web

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

//go:embed templates/*.html
var templateFiles embed.FS

// view is what a page's template gets. A page sets Title, Nav, Scripts and
// Data; render adds the rest.
type view struct {
	// Title is what the page is called, in the browser's too.
	Title string
	// Nav is the entry of the menu that the page belongs to: its path's word.
	Nav string
	// Scripts are files in static/ that this page needs beside outrider.js.
	Scripts []string
	// Styles are files in static/ that this page needs beside style.css.
	Styles []string
	// Data is the page's own.
	Data any

	// Account is the one in the path, else the session's; 0 for all.
	Account domain.AccountID
	// Access is the session's.
	Access domain.Access
	// LoggedIn says that there is one.
	LoggedIn bool
	// Token goes into each form, see the template "token".
	Token string
	// Flash is what was just done, nil for nothing.
	Flash *flash
	// Menu are the entries of the menu.
	Menu []menuEntry
	// Now is when the page was made.
	Now     time.Time
	Version string

	r *request
}

// May reports whether to show what takes a permission: "operate", "configure"
// or "reveal".
func (v *view) May(permission string) (bool, error) {
	switch permission {
	case "operate":
		return v.r.may(domain.Operate), nil
	case "configure":
		return v.r.may(domain.Configure), nil
	case "reveal":
		return v.r.may(domain.Reveal), nil
	}
	return false, fmt.Errorf("there is no permission %q", permission)
}

// menuEntry is one of the menu.
type menuEntry struct {
	Path, Label string
	Current     bool
}

// menu gives the entries for where the request is: of an account, where there
// is one.
func (v *view) menu() (entries []menuEntry) {
	add := func(pattern, path, label, nav string) {
		if has(pattern) {
			entries = append(entries, menuEntry{path, label, v.Nav == nav})
		}
	}
	if v.Account != 0 {
		add("/accounts/{account}", accountPath(v.Account, ""), "Overview", "overview")
		add("/accounts/{account}/webhooks", accountPath(v.Account, "webhooks"), "Webhooks", "webhooks")
		add("/accounts/{account}/deliveries", accountPath(v.Account, "deliveries"), "Deliveries", "deliveries")
		add("/accounts/{account}/replays", accountPath(v.Account, "replays"), "Replays", "replays")
	}
	if v.Access.Sees(0) {
		add("/accounts", "/accounts", "Accounts", "accounts")
		if v.Account == 0 {
			add("/overview", "/overview", "Overview", "overview")
		}
		add("/relays", "/relays", "Relays", "relays")
	}
	return entries
}

// templates are the pages, each with the layout and the parts.
type templates struct{ pages map[string]*template.Template }

// parseTemplates reads templates/: layout.html and the parts, which begin with
// an underscore, belong to every page.
func parseTemplates(p *pages) (*templates, error) {
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	common := template.New("").Funcs(p.functions())
	var names []string
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name == "layout" || strings.HasPrefix(name, "_") {
			if common, err = common.ParseFS(templateFiles, file); err != nil {
				return nil, err
			}
			continue
		}
		names = append(names, name)
	}
	found := &templates{map[string]*template.Template{}}
	for _, name := range names {
		page, err := common.Clone()
		if err == nil {
			page, err = page.ParseFS(templateFiles, "templates/"+name+".html")
		}
		if err != nil {
			return nil, err
		}
		found.pages[name] = page
	}
	return found, nil
}

// render answers with a page: the template of that name within the layout. It
// is made whole before the first byte is sent.
func (p *pages) render(w http.ResponseWriter, r *request, status int, name string, v *view) error {
	p.complete(r, v)
	v.Flash = p.said(w, r)
	return p.write(w, status, name, "layout", v)
}

// complete adds what is the same for all pages.
func (p *pages) complete(r *request, v *view) {
	v.r, v.Access, v.LoggedIn, v.Now, v.Version = r, r.access, r.session != "", p.Now().UTC(), p.Version
	if v.Account = r.account; v.Account == 0 {
		v.Account = r.access.AccountID
	}
	if r.key != "" {
		v.Token = formToken(r.key)
	}
	if v.LoggedIn {
		v.Menu = v.menu()
	}
}

func (p *pages) write(w http.ResponseWriter, status int, name, block string, v *view) error {
	page, ok := p.templates.pages[name]
	if !ok {
		return fmt.Errorf("there is no template %q", name)
	}
	var made bytes.Buffer
	if err := page.ExecuteTemplate(&made, block, v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = made.WriteTo(w) // who left does not hear of it
	return nil
}
