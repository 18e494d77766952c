package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed static
var staticFiles embed.FS

// asset is a file whose name says what is in it, so that browsers may keep it
// for ever.
type asset struct {
	name    string // style.0123456789ab.css
	content []byte
}

// assets are the files by the name that they have in static/.
var assets = sync.OnceValue(func() map[string]asset {
	found := map[string]asset{}
	files, err := fs.ReadDir(staticFiles, "static")
	if err != nil {
		panic(err) // it is part of the program
	}
	for _, file := range files {
		content, err := staticFiles.ReadFile(path.Join("static", file.Name()))
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		extension := path.Ext(file.Name())
		found[file.Name()] = asset{strings.TrimSuffix(file.Name(), extension) + "." + hex.EncodeToString(sum[:6]) + extension, content}
	}
	return found
})

// assetPath is where a file is; "" for one that there is not.
func assetPath(file string) string {
	if a, ok := assets()[file]; ok {
		return "/static/" + a.name
	}
	return ""
}

// static serves a file.
func (p *pages) static(w http.ResponseWriter, r *request) error {
	name := r.PathValue("name")
	for _, a := range assets() {
		if a.name == name {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			http.ServeContent(w, r.Request, name, time.Time{}, bytes.NewReader(a.content))
			return nil
		}
	}
	return errNotFound
}
