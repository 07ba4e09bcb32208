package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

// noted is a watch of one object with one number, and what it has told: the
// numbers, with -1 for nobody.
type noted struct {
	*watch
	told []int
}

func newNoted() *noted {
	n := new(noted)
	n.watch = newWatch(Service{
		Name:    "test.Numbers",
		Objects: []Object{{Path: "/a", Interface: "test.Numbers", Wanted: []string{"Number"}}},
		Changed: func(_ context.Context, objects []Mirror) {
			told := -1
			if objects != nil {
				number, _ := Value[uint32](objects[0], "Number")
				told = int(number)
			}
			n.told = append(n.told, told)
		},
	})
	return n
}

func numbered(n uint32) map[string]godbus.Variant {
	return map[string]godbus.Variant{"Number": godbus.MakeVariant(n)}
}

// changed is a signal that the number has changed.
func (n *noted) changed(as godbus.Sequence, number uint32) []*object {
	return n.hear(&godbus.Signal{Path: "/a", Sequence: as, Body: []any{"test.Numbers", numbered(number), []string{}}})
}

// says is an answer.
func (n *noted) says(as godbus.Sequence, number uint32) {
	n.answer(n.objects[0], answer{all: numbered(number), sequence: as})
}

func TestWhatIsOlderDoesNotCount(t *testing.T) {
	for _, c := range []struct {
		rule string
		run  func(*noted)
		want []int
	}{
		{"in order", func(n *noted) { n.own(":1", 1); n.says(2, 5); n.changed(3, 6) }, []int{6}},
		{"a change from before the answer", func(n *noted) { n.own(":1", 1); n.says(3, 6); n.changed(2, 5) }, []int{6}},
		{"an answer from before a change", func(n *noted) { n.own(":1", 1); n.changed(3, 6); n.says(2, 5) }, nil},
		{"which is asked for again", func(n *noted) { n.own(":1", 1); n.changed(3, 6); n.says(2, 5); n.says(4, 6) }, []int{6}},
		{"an owner from before he left", func(n *noted) { n.own("", 3); n.own(":1", 2) }, []int{-1}},
		{"an owner told twice", func(n *noted) { n.own(":1", 1); n.says(2, 5); n.own(":1", 3) }, []int{5}},
		{"a new owner has yet to say", func(n *noted) { n.own(":1", 1); n.says(2, 5); n.own(":2", 3) }, nil},
	} {
		n := newNoted()
		c.run(n)
		n.tell(t.Context())
		if !slices.Equal(n.told, c.want) {
			t.Errorf("%s: told %v, want %v", c.rule, n.told, c.want)
		}
	}
}

func TestWhoDoesNotAnswerIsAskedEverMoreRarely(t *testing.T) {
	n := newNoted()
	n.own(":1", 1)
	o := n.objects[0]
	var waited []time.Duration
	for range 5 {
		waited = append(waited, o.patience)
		if n.answer(o, answer{err: context.DeadlineExceeded}) {
			t.Fatal("silence will do")
		}
		n.tell(t.Context())
	}
	want := []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute}
	if !slices.Equal(waited, want) {
		t.Errorf("waited %v, want %v", waited, want)
	}
	if n.changed(2, 5) != nil {
		t.Error("asked twice at once")
	}
	n.says(3, 5)
	n.tell(t.Context())
	if want := []int{-1, -1, -1, -1, -1, 5}; !slices.Equal(n.told, want) {
		t.Errorf("told %v, want %v", n.told, want)
	}
}

func TestWhoRefusedIsAskedAgainWhenHeSpeaks(t *testing.T) {
	n := newNoted()
	n.own(":1", 1)
	if !n.answer(n.objects[0], answer{err: errors.New("no"), sequence: 2}) {
		t.Error("a refusal is taken for silence")
	}
	if n.changed(3, 5) == nil {
		t.Error("not asked again")
	}
}

// FuzzProperties has services say whatever the wire can carry. Each input is
// the body of a message and its signature.
func FuzzProperties(f *testing.F) {
	for _, body := range [][]any{
		{"test.Numbers", numbered(5), []string{"Number"}},
		{numbered(5)},
		{"test.Numbers", map[string]godbus.Variant{"Number": godbus.MakeVariant(numbered(5))}, []string{}},
		{[]any{"a", uint32(1)}, []godbus.UnixFDIndex{1}},
	} {
		m := godbus.Message{Type: godbus.TypeSignal, Body: body, Headers: headers(godbus.SignatureOf(body...))}
		var b bytes.Buffer
		if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < fixedHeader {
			return
		}
		if size, err := messageSize(data[:fixedHeader]); err != nil || size > len(data) {
			return // The socket reads whole messages.
		}
		m, err := godbus.DecodeMessage(bytes.NewReader(data))
		if err != nil {
			return
		}
		n := newNoted()
		n.own(":1", 1)
		for as := godbus.Sequence(2); as < 6; as += 2 {
			all, err := allProperties(&godbus.Call{Body: m.Body})
			n.answer(n.objects[0], answer{all, err, as})
			n.hear(&godbus.Signal{Path: "/a", Sequence: as + 1, Body: m.Body})
			n.tell(t.Context())
			if len(n.objects[0].mirror) > 1 {
				t.Errorf("the mirror has what nobody wanted: %v", n.objects[0].mirror)
			}
		}
	})
}

func headers(s godbus.Signature) map[godbus.HeaderField]godbus.Variant {
	return map[godbus.HeaderField]godbus.Variant{
		godbus.FieldPath:      godbus.MakeVariant(godbus.ObjectPath("/a")),
		godbus.FieldInterface: godbus.MakeVariant("a.b"),
		godbus.FieldMember:    godbus.MakeVariant("C"),
		godbus.FieldSignature: godbus.MakeVariant(s),
	}
}
