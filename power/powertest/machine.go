// Package powertest has machines to read in tests and in the demo: trees of
// /sys and /proc, recorded by "joulemux capture" or written from documentation,
// which the first line of each says. The readers themselves are in power/sysfs.
//
// A machine is a txtar archive. The name of a file may be followed by its mode,
// and by the word hex if its contents are not text:
//
//	-- sys/class/powercap/intel-rapl:0/energy_uj 0400 --
//	-- sys/bus/pci/devices/0000:c4:00.0/gpu_metrics hex --
//	0000 08010300
//	-- sys/class/power_supply/ --
//
// A line of hex begins with its offset, and what no line covers is zero. A name
// that ends in a slash is an empty folder.
package powertest

import (
	"bytes"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

//go:embed machines/*.txtar
var recorded embed.FS

// Machine is a machine's trees of files. What others may not read cannot be
// read, whoever runs the test.
type Machine struct {
	// About is the first line: which machine it is, its kernel, and whether it
	// was recorded or written from documentation.
	About string
	files fstest.MapFS
	root  bool
}

// Names returns the names of all machines.
func Names(t testing.TB) []string {
	t.Helper()
	entries, err := fs.ReadDir(recorded, "machines")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".txtar"))
	}
	return names
}

// Load returns a new copy of a machine.
func Load(t testing.TB, name string) *Machine {
	t.Helper()
	m, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Open is Load for the demo, which is no test.
func Open(name string) (*Machine, error) {
	text, err := recorded.ReadFile(path.Join("machines", name+".txtar"))
	if err != nil {
		return nil, err
	}
	m, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// Parse reads a machine. Its own reader of txtar is shorter than the list of
// modules that golang.org/x/tools would bring.
func Parse(text []byte) (*Machine, error) {
	about, _, _ := bytes.Cut(text, []byte("\n"))
	m := &Machine{About: string(about), files: fstest.MapFS{}}
	var file *archived
	for line := range bytes.Lines(text) {
		if header, ok := marker(line); ok {
			if err := m.add(file); err != nil {
				return nil, err
			}
			file = &archived{header: header}
		} else if file != nil {
			file.body = append(file.body, line...)
		}
	}
	return m, m.add(file)
}

// archived is a file as it is in the archive.
type archived struct {
	header []string
	body   []byte
}

func marker(line []byte) ([]string, bool) {
	text, begins := bytes.CutPrefix(bytes.TrimSpace(line), []byte("-- "))
	text, ends := bytes.CutSuffix(text, []byte(" --"))
	header := strings.Fields(string(text))
	return header, begins && ends && len(header) > 0
}

func (m *Machine) add(a *archived) error {
	if a == nil {
		return nil
	}
	name, folder := strings.CutSuffix(a.header[0], "/")
	file := &fstest.MapFile{Data: a.body, Mode: 0o444}
	if folder {
		file = &fstest.MapFile{Mode: fs.ModeDir | 0o555}
	}
	for _, word := range a.header[1:] {
		var err error
		if word == "hex" {
			file.Data, err = decode(a.body)
		} else {
			err = setMode(file, word)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if m.files[name] != nil || !fs.ValidPath(name) {
		return fmt.Errorf("%s is there already, or is no path", name)
	}
	m.files[name] = file
	return nil
}

func setMode(file *fstest.MapFile, octal string) error {
	mode, err := strconv.ParseUint(octal, 8, 9)
	file.Mode = fs.FileMode(mode)
	return err
}

// decode reads lines of an offset and bytes, both in hex.
func decode(body []byte) ([]byte, error) {
	var data []byte
	for line := range strings.Lines(string(body)) {
		at, digits, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			return nil, fmt.Errorf("no offset and bytes in %q", line)
		}
		offset, err := strconv.ParseUint(at, 16, 16)
		if err != nil {
			return nil, err
		}
		part, err := hex.DecodeString(digits)
		if err != nil {
			return nil, err
		}
		if end := int(offset) + len(part); end > len(data) {
			data = append(data, make([]byte, end-len(data))...)
		}
		copy(data[offset:], part)
	}
	return data, nil
}

// Sys returns the tree that is mounted on /sys, and Proc that on /proc.
func (m *Machine) Sys() fs.FS { return m.sub("sys") }

// Proc returns the tree that is mounted on /proc.
func (m *Machine) Proc() fs.FS { return m.sub("proc") }

func (m *Machine) sub(dir string) fs.FS {
	tree, err := fs.Sub(readable{m}, dir)
	if err != nil {
		panic(err) // It fails only for a path that is none.
	}
	return tree
}

// WriteSys writes the tree of /sys as root sees it into a folder, beside what is
// there, for programs that are given one.
func (m *Machine) WriteSys(folder string) error { return os.CopyFS(folder, m.AsRoot().Sys()) }

// AsRoot returns the same machine as root sees it, who may read everything.
func (m *Machine) AsRoot() *Machine { return &Machine{About: m.About, files: m.files, root: true} }

// Set gives a file new contents. Files that are open show them too, as the
// kernel's do.
func (m *Machine) Set(name, text string) {
	if file := m.files[name]; file != nil {
		file.Data = []byte(text)
		return
	}
	m.files[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o444}
}

// Chmod sets the mode of a file that is there.
func (m *Machine) Chmod(name string, mode fs.FileMode) { m.files[name].Mode = mode }

// Remove takes a file, or a folder and what is in it, away.
func (m *Machine) Remove(name string) {
	for file := range m.files {
		if file == name || strings.HasPrefix(file, name+"/") {
			delete(m.files, file)
		}
	}
}

// Files returns the paths of all files, sorted.
func (m *Machine) Files() []string {
	var names []string
	for name := range m.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// readable opens what others may read.
type readable struct{ *Machine }

func (r readable) Open(name string) (fs.File, error) {
	const others = 0o004
	if file := r.files[name]; file != nil && !r.root && file.Mode&others == 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return r.files.Open(name)
}
