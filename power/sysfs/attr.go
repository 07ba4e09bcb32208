package sysfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"sync"
)

// attr is an attribute that is read again and again, and therefore stays open:
// the kernel makes its text anew for each read from the beginning. An open
// attribute keeps no device awake.
type attr struct {
	sys fs.FS
	// paths are where it may be, the best first, in the manner of path.Match:
	// the numbers of hwmon folders change with the driver.
	paths []string

	mu   sync.Mutex
	file fs.File
}

func newAttr(sys fs.FS, paths ...string) *attr { return &attr{sys: sys, paths: paths} }

// read fills p from offset, or as much of it as there is.
func (a *attr) read(p []byte, offset int64) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		n, err := readAt(a.file, p, offset)
		if err == nil {
			return n, nil
		}
		_ = a.file.Close() // The driver may have been loaded anew.
		a.file = nil
	}
	missing := fmt.Errorf("%s: %w", a.paths[0], fs.ErrNotExist)
	for _, pattern := range a.paths {
		n, err := a.readAny(pattern, p, offset)
		if err == nil {
			return n, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			missing = err
		}
	}
	return 0, missing
}

// readAny reads the first that matches the pattern and can be read.
func (a *attr) readAny(pattern string, p []byte, offset int64) (int, error) {
	names := []string{pattern}
	if strings.Contains(pattern, "*") {
		names, _ = fs.Glob(a.sys, pattern) // It fails only for a pattern that is none.
	}
	failed := fs.ErrNotExist
	for _, name := range names {
		file, err := a.sys.Open(name)
		if err != nil {
			failed = err
			continue
		}
		n, err := readAt(file, p, offset)
		if err != nil {
			_ = file.Close()
			failed = err
			continue
		}
		a.keep(file)
		return n, nil
	}
	return 0, failed
}

// keep keeps a file open that can be read from its beginning again.
func (a *attr) keep(file fs.File) {
	if _, ok := file.(io.ReaderAt); ok {
		a.file = file
		return
	}
	_ = file.Close()
}

// readAt reads from file at offset; a file without ReadAt must be new.
func readAt(file fs.File, p []byte, offset int64) (n int, err error) {
	if r, ok := file.(io.ReaderAt); ok {
		n, err = r.ReadAt(p, offset)
	} else if _, err = io.CopyN(io.Discard, file, offset); err == nil {
		n, err = io.ReadFull(file, p)
	}
	if n > 0 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		err = nil // That is all there is.
	}
	return n, err
}

// text returns the attribute without the spaces around it.
func (a *attr) text() (string, error) {
	var buf [64]byte
	n, err := a.read(buf[:], 0)
	return string(bytes.TrimSpace(buf[:n])), err
}

// number returns a numeric attribute.
func (a *attr) number() (int64, error) {
	text, err := a.text()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", a.paths[0], err)
	}
	return n, nil
}

// close closes the file until the attribute is read again.
func (a *attr) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		_ = a.file.Close()
		a.file = nil
	}
}
