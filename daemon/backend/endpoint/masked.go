package endpoint

import (
	"bytes"
	"io"
)

// leastSecret is how long a key is at least that nobody can guess, in bytes. What is
// shorter may be a word, such as "none".
const leastSecret = 20

// masked is an answer in which a key is made out: servers repeat it in errors, and
// some have those in the midst of an answer that began well. Its length stays, and
// nothing is held back but what may be the beginning of the key.
type masked struct {
	io.ReadCloser
	key   []byte
	held  []byte
	ended error
}

// Read reads what is clear of the key.
func (m *masked) Read(p []byte) (int, error) {
	for {
		if n := copy(p, m.held[:m.clear(m.held)]); n > 0 || len(p) == 0 {
			m.held = m.held[n:]
			return n, nil
		}
		if m.ended != nil {
			return 0, m.ended
		}
		n, err := m.ReadCloser.Read(p)
		m.ended = err
		if len(m.held) == 0 && n > 0 && m.clear(p[:n]) == n && !bytes.Contains(p[:n], m.key) {
			return n, nil
		}
		m.held = append(m.held, p[:n]...)
		m.held = bytes.ReplaceAll(m.held, m.key, bytes.Repeat([]byte("*"), len(m.key)))
	}
}

// clear is how much of what was read does not go on to be the key.
func (m *masked) clear(read []byte) int {
	if m.ended != nil {
		return len(read)
	}
	for n := min(len(m.key)-1, len(read)); n > 0; n-- {
		if bytes.HasSuffix(read, m.key[:n]) {
			return len(read) - n
		}
	}
	return len(read)
}
