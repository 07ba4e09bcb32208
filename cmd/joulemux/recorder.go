package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// recorder is a tree that writes down what is read in it.
type recorder struct {
	tree    fs.FS
	files   map[string]*extract
	folders map[string]bool
}

// extract is as much of a file as was read.
type extract struct {
	data []byte
	// mode is set where the file could not be opened.
	mode fs.FileMode
}

func newRecorder(tree fs.FS) *recorder {
	return &recorder{tree, make(map[string]*extract), make(map[string]bool)}
}

// Open opens a file whose reads are written down.
func (r *recorder) Open(name string) (fs.File, error) {
	file, err := r.tree.Open(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		r.files[name] = &extract{mode: r.modeOf(name)}
		return nil, err
	case err != nil:
		return nil, err
	}
	if info, err := file.Stat(); err == nil && info.IsDir() {
		r.folders[name] = true
		return file, nil
	}
	e := r.files[name]
	if e == nil {
		e = new(extract)
		r.files[name] = e
	}
	return &watched{File: file, extract: e}, nil
}

// modeOf returns the mode of a file that cannot be opened.
func (r *recorder) modeOf(name string) fs.FileMode {
	const rootOnly = 0o400
	info, err := fs.Stat(r.tree, name)
	if err != nil || info.Mode().Perm() == 0 {
		return rootOnly
	}
	return info.Mode().Perm()
}

// watched is a file of a recorder.
type watched struct {
	fs.File
	extract *extract
	next    int64
}

func (f *watched) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.extract.put(f.next, p[:n])
	f.next += int64(n)
	return n, err
}

// ReadAt is what sensors read with that keep their files open. Those of the
// operating system all have it.
func (f *watched) ReadAt(p []byte, offset int64) (int, error) {
	at, ok := f.File.(io.ReaderAt)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	n, err := at.ReadAt(p, offset)
	f.extract.put(offset, p[:n])
	return n, err
}

// put writes down what was read. The first look counts, so that what belongs
// together is of one moment.
func (e *extract) put(offset int64, p []byte) {
	if end := int(offset) + len(p); end > len(e.data) {
		known := len(e.data)
		e.data = append(e.data, make([]byte, end-known)...)
		skip := max(known-int(offset), 0)
		copy(e.data[int(offset)+skip:], p[skip:])
	}
}

// write appends what was read to an archive, below a folder.
func (r *recorder) write(b *strings.Builder, below string) {
	names := make(map[string]string) // by what they are called in the archive
	for name := range r.files {
		names[name] = name
	}
	for name := range r.folders {
		if r.empty(name) {
			names[name+"/"] = name
		}
	}
	rename := anonymous(names)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(b, "-- %s", path.Join(below, rename(name)))
		if strings.HasSuffix(name, "/") {
			b.WriteString("/ --\n")
			continue
		}
		r.files[name].write(b, name)
	}
}

// empty reports whether a folder of a bus or class, in which each entry stands
// for a device, had nothing to be read.
func (r *recorder) empty(folder string) bool {
	if parent := path.Dir(folder); parent != "class" && !strings.HasPrefix(parent, "bus/") {
		return false
	}
	for name := range r.files {
		if strings.HasPrefix(name, folder+"/") {
			return false
		}
	}
	return true
}

// write appends the rest of the header, and the contents.
func (e *extract) write(b *strings.Builder, name string) {
	data := e.data
	if name == "stat" {
		data, _, _ = bytes.Cut(data, []byte("\n")) // The rest is of no use here.
	}
	switch {
	case e.mode != 0:
		fmt.Fprintf(b, " %04o --\n", e.mode)
	case isText(data):
		b.WriteString(" --\n")
		for line := range bytes.Lines(data) {
			fmt.Fprintf(b, "%s\n", bytes.TrimSuffix(line, []byte("\n")))
		}
	default:
		b.WriteString(" hex --\n")
		writeHex(b, data)
	}
}

// isText reports whether contents can stand in an archive as they are.
func isText(data []byte) bool {
	return utf8.Valid(data) && !bytes.Contains(data, []byte("-- ")) && bytes.IndexFunc(data, func(c rune) bool {
		return unicode.IsControl(c) && c != '\n' && c != '\t'
	}) < 0
}

// writeHex writes lines of an offset and bytes. What is zero is left out, but
// for the end, which tells how long it is.
func writeHex(b *strings.Builder, data []byte) {
	const width = 32
	for offset := 0; offset < len(data); offset += width {
		part := data[offset:min(offset+width, len(data))]
		if last := offset+width >= len(data); last || bytes.ContainsFunc(part, func(c rune) bool { return c != 0 }) {
			fmt.Fprintf(b, "%04x %x\n", offset, part)
		}
	}
}

// common are the names that firmware and drivers give to supplies. Those of
// peripherals have a serial number or a hardware address in them, and so has
// perhaps every other.
var common = regexp.MustCompile(`^[A-Za-z]{1,8}[0-9]{0,2}$`)

// anonymous returns a function that gives supplies with a name of their own a
// number instead.
func anonymous(names map[string]string) func(string) string {
	const class = "class/power_supply/"
	numbers := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		rest, ok := strings.CutPrefix(name, class)
		supply, _, _ := strings.Cut(rest, "/")
		if ok && supply != "" && !common.MatchString(supply) && numbers[supply] == "" {
			numbers[supply] = fmt.Sprintf("supply-%d", len(numbers)+1)
		}
	}
	return func(name string) string {
		rest, ok := strings.CutPrefix(name, class)
		supply, attribute, _ := strings.Cut(rest, "/")
		if number := numbers[supply]; ok && number != "" {
			return class + path.Join(number, attribute)
		}
		return name
	}
}
