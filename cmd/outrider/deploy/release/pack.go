package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"path"
	"time"
)

// pack makes a tar.gz with all files in a folder of that name. Nothing in it
// depends on who packs, when or where.
func pack(folder string, files []file, made time.Time) ([]byte, error) {
	var packed bytes.Buffer
	compressor, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(compressor)
	for _, f := range files {
		header := &tar.Header{
			Format: tar.FormatUSTAR, Typeflag: tar.TypeReg,
			Name: path.Join(folder, f.name), Size: int64(len(f.content)), Mode: 0o644, ModTime: made,
		}
		if f.program {
			header.Mode = 0o755
		}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, err
		}
	}
	err = errors.Join(archive.Close(), compressor.Close())
	return packed.Bytes(), err
}
