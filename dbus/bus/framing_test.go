package bus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// socketPair returns a socket past its authentication, and the bus's end.
func socketPair(t *testing.T) (*socket, *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		conn, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		t.Cleanup(func() { _ = conn.Close() })
		ends[i] = conn.(*net.UnixConn)
	}
	return &socket{UnixConn: ends[0], begun: true}, ends[1]
}

// message returns the bytes of a signal with a body of that many characters.
func message(t *testing.T, order binary.ByteOrder, size int) []byte {
	t.Helper()
	m := godbus.Message{Type: godbus.TypeSignal, Headers: headers(godbus.SignatureOf("")), Body: []any{strings.Repeat("x", size)}}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, order); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sizes are of bodies that fit into our buffer, and that do not.
var sizes = []int{0, 1, 7, 8, 4000, 5000, 1 << 20}

// sendInParts sends messages of all sizes, each in three parts that bring a
// descriptor each, and ends the connection.
func sendInParts(t *testing.T, far *net.UnixConn, order binary.ByteOrder, rights []byte) {
	t.Helper()
	defer far.Close()
	for _, size := range sizes {
		m := message(t, order, size)
		for _, part := range [][]byte{m[:1], m[1:20], m[20:]} {
			n, _, err := far.WriteMsgUnix(part, rights, nil)
			if err == nil {
				_, err = far.Write(part[n:])
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	}
}

func TestSocketReadsMessageByMessage(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		s, far := socketPair(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			sendInParts(t, far, order, syscall.UnixRights(int(w.Fd())))
		}()
		for _, size := range sizes {
			m, err := godbus.DecodeMessage(s)
			if err != nil {
				t.Fatalf("%d characters: %v", size, err)
			}
			if got := len(m.Body[0].(string)); got != size || len(s.unread) != 0 {
				t.Errorf("%d characters came as %d, and %d bytes are left", size, got, len(s.unread))
			}
			if len(s.came) != 3 {
				t.Errorf("with %d characters came %d descriptors", size, len(s.came))
			}
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after the last message: %v", err)
		}
		<-sent
		_ = w.Close()
		_ = r.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("somebody holds on to a descriptor that nobody claimed: %v", err)
		}
	}
}

func TestWhatIsNoMessageEndsTheConnection(t *testing.T) {
	good := message(t, binary.LittleEndian, 1)
	for rule, spoil := range map[string]func([]byte){
		"a byte order that is none": func(m []byte) { m[0] = 'x' },
		"a body too long":           func(m []byte) { binary.LittleEndian.PutUint32(m[4:], 1<<27) },
		"header fields too long":    func(m []byte) { binary.LittleEndian.PutUint32(m[12:], 1<<27) },
		"lengths that overflow": func(m []byte) {
			binary.LittleEndian.PutUint32(m[4:], 1<<32-8)
			binary.LittleEndian.PutUint32(m[12:], 1<<32-8)
		},
	} {
		s, far := socketPair(t)
		bad := bytes.Clone(good)
		spoil(bad)
		if _, err := far.Write(bad); err != nil {
			t.Fatal(err)
		}
		if _, err := godbus.DecodeMessage(s); !errors.Is(err, errFraming) {
			t.Errorf("%s gave %v", rule, err)
		}
	}
}

func TestEachDescriptorIsClaimedOnce(t *testing.T) {
	for _, c := range []struct {
		rule      string
		arguments []any
		works     bool
	}{
		{"each by its index", []any{"word", godbus.UnixFDIndex(1), godbus.UnixFDIndex(0)}, true},
		{"not all of them", []any{godbus.UnixFDIndex(1)}, true},
		{"one twice", []any{godbus.UnixFDIndex(1), godbus.UnixFDIndex(1)}, false},
		{"one more than came", []any{godbus.UnixFDIndex(0), godbus.UnixFDIndex(1), godbus.UnixFDIndex(2)}, false},
		{"one far away", []any{godbus.UnixFDIndex(1<<32 - 1)}, false},
	} {
		s := socket{came: []int{1000, 1001}}
		if got := s.claim(c.arguments); got != c.works {
			t.Errorf("%s: %t", c.rule, got)
		}
		if !c.works && !slices.Equal(s.came, []int{1000, 1001}) {
			t.Errorf("%s: left to be closed are %v", c.rule, s.came)
		}
	}
}
