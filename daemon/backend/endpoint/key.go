package endpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Key is where a server's key is: in a file, or in a credential that the service
// manager hands over under that name.
type Key struct{ File, Credential string }

// String says where the key is, and never what.
func (k Key) String() string {
	if k.Credential != "" {
		return "the credential " + k.Credential
	}
	return k.File
}

// longestKey is in bytes, and longer than any token.
const longestKey = 8 << 10

// Read reads the key. A file that others than its owner may read is an error, and
// so is one whose owner is neither us nor root.
func (k Key) Read() (string, error) {
	key, _, err := k.read()
	return key, err
}

func (k Key) read() (key string, was version, err error) {
	path, err := k.path()
	if err != nil {
		return "", was, err
	}
	// Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", was, fmt.Errorf("the key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = k.guarded(info)
	}
	if err == nil {
		key, err = readKey(f)
	}
	if err != nil {
		return "", was, fmt.Errorf("the key in %s: %w", k, err)
	}
	return key, versionOf(info), nil
}

func (k Key) path() (string, error) {
	if k.Credential == "" {
		return k.File, nil
	}
	folder := os.Getenv("CREDENTIALS_DIRECTORY")
	if folder == "" {
		return "", fmt.Errorf("the key in %s: the service manager has handed over none (LoadCredentialEncrypted= in joulemuxd.service)", k)
	}
	return filepath.Join(folder, k.Credential), nil
}

// guarded returns who else can read the key, if somebody can. A credential is in a
// folder of ours alone; of its mode, the group's part is that of an access list.
func (k Key) guarded(info fs.FileInfo) error {
	others := fs.FileMode(0o077)
	if k.Credential != "" {
		others = 0o007
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file")
	case info.Mode()&others != 0:
		return fmt.Errorf("others may read it (mode %04o): chmod 600", info.Mode().Perm())
	case ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to another user (uid %d)", stat.Uid)
	default:
		return nil
	}
}

func readKey(f io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(f, longestKey+1))
	if err != nil {
		return "", err
	}
	key := strings.TrimSpace(string(text))
	switch {
	case key == "":
		return "", errors.New("it is empty")
	case len(text) > longestKey:
		return "", fmt.Errorf("it is longer than %d bytes", longestKey)
	case strings.IndexFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0:
		return "", errors.New("want one line of ASCII without spaces")
	}
	return key, nil
}

// version tells one content of a file from the next.
type version struct {
	inode    uint64
	size     int64
	modified time.Time
}

func versionOf(info fs.FileInfo) version {
	v := version{size: info.Size(), modified: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		v.inode = stat.Ino
	}
	return v
}

// keyring keeps a key, and reads it again when it changes.
type keyring struct {
	Key
	mu  sync.Mutex
	key string
	was version
}

// current returns the key, or "" of no keyring. As long as its file stays what it
// is that costs a look at its inode.
func (k *keyring) current() (string, error) {
	if k == nil {
		return "", nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != "" {
		path, err := k.path()
		if err != nil {
			return "", err
		}
		if info, err := os.Stat(path); err == nil && versionOf(info) == k.was && k.guarded(info) == nil {
			return k.key, nil
		}
	}
	return k.readLocked()
}

// anew reads the key, changed or not.
func (k *keyring) anew() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.readLocked()
}

func (k *keyring) readLocked() (string, error) {
	key, was, err := k.read()
	k.key, k.was = key, was
	return key, err
}
