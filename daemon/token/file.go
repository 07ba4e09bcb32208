package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// FileName is the file of tokens, in the folder of the configuration.
const FileName = "tokens"

// DefaultPath returns where the file is: $XDG_CONFIG_HOME/joulemux/tokens.
func DefaultPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "joulemux", FileName), nil
}

// The errors of a File.
var (
	ErrTaken  = errors.New("there is a token of that name")
	ErrNone   = errors.New("there is no token of that name")
	ErrUnsafe = errors.New("others may read or change it")
)

const (
	// maxFile and maxTokens are far more than anybody makes.
	maxFile   = 1 << 20
	maxTokens = 1000
)

// File is the tokens in a file, one a line in JSON. What it knows it looks up
// again once the file is another: nothing watches it, and so nothing wakes up.
type File struct {
	path string

	mu   sync.Mutex // guards the following
	seen state
	all  []Token
	err  error
}

// Open returns the tokens of the file at path, which need not be there.
func Open(path string) *File { return &File{path: path} }

// state is what tells one state of a file from another.
type state struct {
	exists   bool
	inode    uint64
	size     int64
	changed  syscall.Timespec
	modified time.Time
}

func stateOf(info fs.FileInfo) state {
	s := state{exists: true, size: info.Size(), modified: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.changed = sys.Ino, sys.Ctim // a change of the mode, too
	}
	return s
}

// All returns the tokens that there are, by their names.
func (f *File) All() ([]Token, error) {
	var now state
	if info, err := os.Stat(f.path); err == nil {
		now = stateOf(info)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now != f.seen || f.err != nil { // there may be more file descriptors now
		f.seen = now
		f.all, f.err = load(f.path)
	}
	return f.all, f.err
}

// Find returns the token of a secret, whether or not it has expired.
func (f *File) Find(secret string) (t Token, found bool, err error) {
	all, err := f.All()
	if err != nil {
		return Token{}, false, err
	}
	t, found = find(all, secret)
	return t, found, nil
}

// load reads the file. Without one there are no tokens.
func load(path string) ([]Token, error) {
	// Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: it is no regular file", path)
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); info.Mode().Perm()&0o077 != 0 || ok && int(sys.Uid) != os.Getuid() {
		return nil, fmt.Errorf("%s: %w: it must be this user's, and its mode 0600", path, ErrUnsafe)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	all, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// parse reads what format writes.
func parse(text []byte) ([]Token, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("it is longer than %d bytes", maxFile)
	}
	var all []Token
	n := 0
	for line := range bytes.Lines(text) {
		n++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var t Token
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields() // were one a restriction, it must not be lost
		if err := d.Decode(&t); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("line %d: want one token", n)
		}
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if named(all, t.Name) >= 0 {
			return nil, fmt.Errorf("line %d: %w: %s", n, ErrTaken, t.Name)
		}
		all = append(all, t)
	}
	if len(all) > maxTokens {
		return nil, fmt.Errorf("there are more than %d tokens", maxTokens)
	}
	return all, nil
}

// check says what is wrong with a token.
func (t Token) check() error {
	if err := CheckName(t.Name); err != nil {
		return err
	}
	if t.Hash == (Hash{}) {
		return errors.New("it has no hash")
	}
	if len(t.Rights) == 0 {
		return errors.New("it has no rights")
	}
	for _, r := range t.Rights {
		if _, err := ParseRight(string(r)); err != nil {
			return err
		}
	}
	return nil
}

func named(all []Token, name string) int {
	return slices.IndexFunc(all, func(t Token) bool { return t.Name == name })
}

// format writes tokens, one a line.
func format(all []Token) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for _, t := range all {
		if err := e.Encode(t); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// Create adds a token, and returns its secret, which is nowhere else.
func (f *File) Create(t Token) (secret string, err error) {
	secret = NewSecret()
	t.Hash = HashOf(secret)
	if err := t.check(); err != nil {
		return "", err
	}
	err = f.change(func(all []Token) ([]Token, error) {
		switch {
		case named(all, t.Name) >= 0:
			return nil, fmt.Errorf("%w: %s", ErrTaken, t.Name)
		case len(all) >= maxTokens:
			return nil, fmt.Errorf("there are %d tokens already", len(all))
		}
		return append(all, t), nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// Revoke deletes a token: from then on it is refused.
func (f *File) Revoke(name string) error {
	return f.change(func(all []Token) ([]Token, error) {
		at := named(all, name)
		if at < 0 {
			return nil, fmt.Errorf("%w: %s", ErrNone, name)
		}
		return slices.Delete(all, at, at+1), nil
	})
}

// change replaces the file as a whole, so that whoever reads it meanwhile sees
// the old one or the new one, and one change at a time.
func (f *File) change(edit func([]Token) ([]Token, error)) error {
	dir := filepath.Dir(f.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer lock.Close() // which ends the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", dir, err)
	}
	all, err := load(f.path)
	if err != nil {
		return err
	}
	if all, err = edit(all); err != nil {
		return err
	}
	text, err := format(all)
	if err != nil {
		return err
	}
	return errors.Join(replace(f.path, text), lock.Sync()) // what is revoked must not come back after a crash
}

// replace writes a file that only its owner may read.
func replace(path string, text []byte) error {
	next, err := os.CreateTemp(filepath.Dir(path), "."+FileName+"-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // where it was not renamed
	_, err = next.Write(text)
	if err = errors.Join(err, next.Sync(), next.Close()); err != nil {
		return err
	}
	return os.Rename(next.Name(), path)
}
