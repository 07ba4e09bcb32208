package bus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"

	godbus "github.com/godbus/dbus/v5"
)

// socket carries messages between godbus and the bus, and keeps the
// descriptors that come along to itself until a call claims them.
//
// godbus (5.2.4) can receive descriptors without help, but then any peer can
// end us: an array of them panics in its decoder, those of a message that it
// rejects stay open for ever, and an index that no descriptor was sent for
// becomes one of our own when a method's arguments are stored. Given a stream
// that it takes for one without descriptors it decodes all as mere indexes.
type socket struct {
	*net.UnixConn
	wanted bool // Whether to ask the bus for descriptors.
	begun  bool // Whether messages flow: authentication is over.

	unread []byte // What godbus has yet to read of the current message.
	buffer [4096]byte
	rights [1064]byte // The 253 descriptors that the kernel lets pass at once (SCM_MAX_FD).

	mu   sync.Mutex
	came []int // Descriptors that came with the current message; -1 once claimed.
}

// Read gives godbus what the bus says, one message after the other.
func (s *socket) Read(p []byte) (int, error) {
	if !s.begun {
		return s.UnixConn.Read(p)
	}
	if len(s.unread) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// Write passes on what godbus has to say.
func (s *socket) Write(p []byte) (int, error) {
	if !s.begun && bytes.Equal(p, []byte("BEGIN\r\n")) {
		if err := s.negotiate(); err != nil {
			return 0, err
		}
		s.begun = true
	}
	return s.UnixConn.Write(p)
}

// Close also closes the descriptors that nobody has claimed.
func (s *socket) Close() error {
	s.drop()
	return s.UnixConn.Close()
}

// negotiate asks the bus for descriptors, as the last step of authentication.
// A bus that has none is fine too.
func (s *socket) negotiate() error {
	if !s.wanted {
		return nil
	}
	if _, err := s.UnixConn.Write([]byte("NEGOTIATE_UNIX_FD\r\n")); err != nil {
		return err
	}
	for char := []byte{0}; char[0] != '\n'; {
		if _, err := s.UnixConn.Read(char); err != nil {
			return err
		}
	}
	return nil
}

// next reads one message that godbus can decode.
//
// Any other would cost us the connection, and there are some that the bus
// passes on: an empty array may be in more containers than godbus (5.2.4)
// allows. Whoever sends one gets no answer.
func (s *socket) next() error {
	for {
		message, err := s.receive()
		if err != nil {
			return err
		}
		if !mayBeDeep(message) || decodes(message) {
			s.unread = message
			return nil
		}
	}
}

// deepest is how many containers godbus decodes within each other.
const deepest = 64

// mayBeDeep reports whether there may be more containers in a message than
// godbus decodes: each has its letter in a signature. To decode every message
// twice would cost wake-ups.
func mayBeDeep(message []byte) bool {
	letters := 0
	for _, container := range []string{"a", "v", "(", "{"} {
		letters += bytes.Count(message, []byte(container))
	}
	return letters >= deepest
}

func decodes(message []byte) bool {
	_, err := godbus.DecodeMessage(bytes.NewReader(message))
	return err == nil
}

// receive reads one message, and the descriptors that came with it alone: the
// kernel hands them over with the first byte of what they were sent with.
func (s *socket) receive() ([]byte, error) {
	s.drop()
	head := s.buffer[:fixedHeader]
	if err := s.fill(head); err != nil {
		return nil, err
	}
	size, err := messageSize(head)
	if err != nil {
		return nil, err
	}
	message := s.buffer[:]
	if size > len(message) {
		message = make([]byte, size)
		copy(message, head)
	}
	if err := s.fill(message[fixedHeader:size]); err != nil {
		return nil, err
	}
	return message[:size], nil
}

// fill reads until p is full.
func (s *socket) fill(p []byte) error {
	for len(p) > 0 {
		n, rights, _, _, err := s.ReadMsgUnix(p, s.rights[:])
		if err != nil {
			return err
		}
		if rights > 0 {
			s.keep(s.rights[:rights])
		}
		p = p[n:]
	}
	return nil
}

// keep stores the descriptors that came with the current message. Those for
// which we have no room left are lost, and claiming them will fail.
func (s *socket) keep(rights []byte) {
	messages, _ := syscall.ParseSocketControlMessage(rights)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		descriptors, _ := syscall.ParseUnixRights(&m)
		s.came = append(s.came, descriptors...)
	}
}

// drop closes the descriptors that nobody has claimed.
func (s *socket) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.came {
		if d >= 0 {
			_ = syscall.Close(d)
		}
	}
	s.came = s.came[:0]
}

// admit returns what lets calls that serving accepts claim their descriptors.
// godbus runs it between reading a message and handling it.
func (s *socket) admit(serving Serving) godbus.Interceptor {
	return func(m *godbus.Message) {
		if m.Type != godbus.TypeMethodCall {
			return
		}
		signature, ok := serving.Accepts(text(m, godbus.FieldInterface), text(m, godbus.FieldMember))
		if ok && !(signatureOf(m) == signature && reaches(serving, m) && s.claim(m.Body)) {
			m.Body = nil
		}
	}
}

// claim replaces the indexes among the arguments of a call by the descriptors
// that they stand for. It reports whether each stands for one of its own.
func (s *socket) claim(arguments []any) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.Clone(s.came)
	for i, a := range arguments {
		index, ok := a.(godbus.UnixFDIndex)
		if !ok {
			continue
		}
		if index >= godbus.UnixFDIndex(len(left)) || left[index] < 0 {
			return false
		}
		arguments[i], left[index] = godbus.UnixFD(left[index]), -1
	}
	s.came = left
	return true
}

// reaches reports whether a call leads to a method.
func reaches(h godbus.Handler, m *godbus.Message) bool {
	path, _ := m.Headers[godbus.FieldPath].Value().(godbus.ObjectPath)
	object, ok := h.LookupObject(path)
	if !ok {
		return false
	}
	iface, ok := object.LookupInterface(text(m, godbus.FieldInterface))
	if !ok {
		return false
	}
	_, ok = iface.LookupMethod(text(m, godbus.FieldMember))
	return ok
}

// text returns a header field that is a string, or "".
func text(m *godbus.Message, field godbus.HeaderField) string {
	s, _ := m.Headers[field].Value().(string)
	return s
}

// signatureOf returns the signature of the body.
func signatureOf(m *godbus.Message) string {
	s, _ := m.Headers[godbus.FieldSignature].Value().(godbus.Signature)
	return s.String()
}

const (
	fixedHeader = 16      // Up to the length of the header fields, inclusive.
	maxMessage  = 1 << 27 // As the specification has it.
)

var errFraming = errors.New("not a D-Bus message")

// messageSize returns how long the message is that begins with head.
func messageSize(head []byte) (int, error) {
	var order binary.ByteOrder
	switch head[0] {
	case 'l':
		order = binary.LittleEndian
	case 'B':
		order = binary.BigEndian
	default:
		return 0, errFraming
	}
	body, fields := int64(order.Uint32(head[4:])), int64(order.Uint32(head[12:]))
	size := fixedHeader + (fields+7)&^7 + body // The body is aligned to 8 bytes.
	if size > maxMessage {
		return 0, errFraming
	}
	return int(size), nil
}

var _ io.ReadWriteCloser = (*socket)(nil)
