package energyd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/energyd"
)

// limit is how long anything here may take that has to happen.
const limit = 10 * time.Second

// counter counts how often it is read.
type counter struct {
	domain power.Domain
	reads  *atomic.Int64
}

func newCounter(name string, scope power.Scope, within string) counter {
	return counter{power.Domain{
		Name: name, Scope: scope, Source: "rapl", Within: within, Cumulative: true,
		Range: 262143328850, Most: 250 * power.Watt, Period: 100 * time.Millisecond,
	}, new(atomic.Int64)}
}

func (c counter) Domain() power.Domain { return c.domain }

func (c counter) Read(context.Context) (power.Reading, error) {
	return power.Reading{At: time.Now(), Energy: power.Energy(c.reads.Add(1))}, nil
}

// helper is a server that runs in this process.
type helper struct {
	socket string
	stop   context.CancelFunc
	ended  chan struct{}
}

// startHelper serves counters until the test ends. Idle is half a minute if it
// is zero.
func startHelper(t *testing.T, socket string, idle time.Duration, counters ...counter) *helper {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := energyd.Server{Access: energyd.Access{Users: []uint32{uint32(os.Getuid())}}, Idle: 30 * time.Second, Log: slog.New(slog.DiscardHandler)}
	if idle > 0 {
		server.Idle = idle
	}
	for _, c := range counters {
		server.Readers = append(server.Readers, c)
	}
	ctx, stop := context.WithCancel(context.Background())
	h := &helper{socket, stop, make(chan struct{})}
	go func() {
		defer close(h.ended)
		server.Serve(ctx, listener)
	}()
	t.Cleanup(func() {
		stop()
		h.awaitEnd(t)
	})
	return h
}

func (h *helper) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-h.ended:
	case <-time.After(limit):
		t.Fatal("the helper does not end")
	}
}

// socketPath is one that is short enough.
func socketPath(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "energyd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return filepath.Join(folder, "s")
}

func find(t *testing.T, socket string) []*energyd.Sensor {
	t.Helper()
	sensors, err := energyd.Sensors(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	return sensors
}

// readSoon reads a sensor until it can be read: a busy machine may take longer
// than a sensor waits.
func readSoon(t *testing.T, s *energyd.Sensor) power.Reading {
	t.Helper()
	for end := time.Now().Add(limit); ; {
		r, err := s.Read(t.Context())
		if err == nil {
			return r
		}
		if !errors.Is(err, power.ErrUnavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// dial connects as others might.
func dial(t *testing.T, socket string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestSensorsTellWhatTheHelperReads(t *testing.T) {
	pkg, npu := newCounter("package-0", power.ScopePackage, ""), newCounter("npu", power.ScopeNPU, "package-0")
	h := startHelper(t, socketPath(t), 0, pkg, npu)
	sensors := find(t, h.socket)
	if len(sensors) != 2 || sensors[0].Domain() != pkg.domain || sensors[1].Domain() != npu.domain {
		t.Fatalf("the domains are %v", sensors)
	}
	begin := time.Now()
	r := readSoon(t, sensors[0])
	if r.Energy < 1 || r.At.After(time.Now()) || begin.Sub(r.At) > time.Second || !strings.Contains(r.At.String(), "m=") {
		t.Errorf("read %d, %v after %v", r.Energy, r.At, begin)
	}
}

func TestOneLookServesAllSensors(t *testing.T) {
	pkg, core := newCounter("package-0", power.ScopePackage, ""), newCounter("core-0", power.ScopeCore, "package-0")
	h := startHelper(t, socketPath(t), 0, pkg, core)
	sensors := find(t, h.socket)
	begin := time.Now()
	last, reads := readSoon(t, sensors[0]), 1
	for time.Since(begin) < 550*time.Millisecond || reads < 100 {
		for _, s := range sensors {
			r := readSoon(t, s)
			reads++
			if s != sensors[0] {
				continue
			}
			// A count and its time go together, whoever reads how often.
			if (r.Energy == last.Energy) != r.At.Equal(last.At) || r.At.Before(last.At) {
				t.Fatalf("%d at %v, and then %d at %v", last.Energy, last.At, r.Energy, r.At)
			}
			last = r
		}
	}
	took := time.Since(begin)
	if n := pkg.reads.Load(); n > 2+int64(took/(100*time.Millisecond)) || n < 2 || core.reads.Load() != n {
		t.Errorf("%d and %d looks at the hardware for %d reads in %v", n, core.reads.Load(), reads, took)
	}
}

// idle is for how long a helper stays whose end a test waits for: on a loaded
// machine it takes a while until somebody is connected.
const idle = time.Second

func TestHelperEndsWhenNobodyIsConnected(t *testing.T) {
	t.Parallel()
	h := startHelper(t, socketPath(t), idle)
	begin, conn := time.Now(), dial(t, h.socket)
	select {
	case <-h.ended:
		t.Fatal("it ended with a connection")
	case <-time.After(2 * idle):
	}
	_ = conn.Close()
	h.awaitEnd(t)
	if took := time.Since(begin); took < 3*idle {
		t.Errorf("it ended after %v", took)
	}
}

func TestSensorsKeepTheHelperUntilAllRest(t *testing.T) {
	t.Parallel()
	h := startHelper(t, socketPath(t), idle,
		newCounter("package-0", power.ScopePackage, ""), newCounter("npu", power.ScopeNPU, "package-0"))
	sensors := find(t, h.socket)
	for _, s := range sensors {
		readSoon(t, s)
	}
	sensors[0].Rest()
	select {
	case <-h.ended:
		t.Fatal("it ended while a sensor was in use")
	case <-time.After(2 * idle):
	}
	sensors[1].Rest()
	h.awaitEnd(t)
}

func TestHelperStopsWhenToldTo(t *testing.T) {
	h := startHelper(t, socketPath(t), 0)
	conn := dial(t, h.socket)
	h.stop()
	h.awaitEnd(t)
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection gives %v", err)
	}
}

func TestGarbageIsAnsweredAndEndsTheConnection(t *testing.T) {
	h := startHelper(t, socketPath(t), 0, newCounter("package-0", power.ScopePackage, ""))
	for _, said := range []string{
		"GET / HTTP/1.1\r\n", "\x00\x00\n", `{"read":"../../etc/shadow"}` + "\n", "{}\n", "\n",
		strings.Repeat("x", 127) + "\n", strings.Repeat("x", 128), strings.Repeat(" ", 1<<20),
	} {
		conn := dial(t, h.socket)
		_, _ = conn.Write([]byte(said)) // It may be cut off in the middle.
		answer, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(answer, `{"error":"the only question is`) {
			t.Errorf("%.20q is answered by %q, %v", said, answer, err)
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%.20q is followed by %d bytes", said, n)
		}
		_ = conn.Close()
	}
	readSoon(t, find(t, h.socket)[0])
}

func TestWhoOnlyConnectsTakesNoMoreThanItsRoom(t *testing.T) {
	h := startHelper(t, socketPath(t), 0, newCounter("package-0", power.ScopePackage, ""))
	var idle []net.Conn
	for range 4 {
		idle = append(idle, dial(t, h.socket))
	}
	// One after the other: so all of them have been let in.
	for _, conn := range idle {
		fmt.Fprintln(conn, `{"read":true}`)
		if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(answer, "package-0") {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	for range 1000 {
		conn := dial(t, h.socket)
		if answer, err := io.ReadAll(conn); err != nil || !strings.Contains(string(answer), "too many connections") {
			t.Fatalf("%q, %v", answer, err)
		}
		_ = conn.Close()
	}
	if _, err := energyd.Sensors(t.Context(), h.socket); !errors.Is(err, power.ErrUnavailable) || !strings.Contains(err.Error(), "too many connections") {
		t.Errorf("got %v", err)
	}
	_ = idle[0].Close()
	for end := time.Now().Add(limit); ; {
		if _, err := energyd.Sensors(t.Context(), h.socket); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("there is room again, and still %v", err)
		}
	}
}

func TestNoHelperIsOnlyAnAbsentSensor(t *testing.T) {
	deaf := socketPath(t) // Somebody listened there once.
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: deaf, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	_ = listener.Close()
	for _, socket := range []string{"", socketPath(t), deaf, t.TempDir()} {
		begin := time.Now()
		if s, err := energyd.Sensors(t.Context(), socket); !errors.Is(err, power.ErrUnavailable) || s != nil {
			t.Errorf("%q: %v, %v", socket, s, err)
		}
		if took := time.Since(begin); took > limit {
			t.Errorf("%q: it took %v to find nobody", socket, took)
		}
	}
}

func TestHelperThatGoesAwayAndComesBack(t *testing.T) {
	h := startHelper(t, socketPath(t), 0, newCounter("package-0", power.ScopePackage, ""))
	s := find(t, h.socket)[0]
	before := readSoon(t, s)
	h.stop()
	h.awaitEnd(t)
	for end := time.Now().Add(limit); ; { // What was found stands for a moment.
		_, err := s.Read(t.Context())
		if errors.Is(err, power.ErrUnavailable) {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("the helper is gone, and that gives %v", err)
		}
	}
	startHelper(t, h.socket, 0, newCounter("package-0", power.ScopePackage, ""))
	if after := readSoon(t, s); !after.At.After(before.At) {
		t.Errorf("it says what was true at %v", after.At)
	}
	s.Rest()
}

func TestDomainThatIsGoneIsUnavailable(t *testing.T) {
	h := startHelper(t, socketPath(t), 0, newCounter("package-0", power.ScopePackage, ""), newCounter("npu", power.ScopeNPU, ""))
	sensors := find(t, h.socket)
	h.stop()
	h.awaitEnd(t)
	startHelper(t, h.socket, 0, newCounter("package-0", power.ScopePackage, ""))
	readSoon(t, sensors[0])
	if r, err := sensors[1].Read(t.Context()); !errors.Is(err, power.ErrUnavailable) || !strings.Contains(err.Error(), "npu") {
		t.Errorf("got %+v, %v", r, err)
	}
}

// sluggard is a helper that answers when it is told to.
type sluggard struct {
	socket string
	asked  chan net.Conn
}

func startSluggard(t *testing.T) *sluggard {
	t.Helper()
	s := &sluggard{socketPath(t), make(chan net.Conn, 10)}
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go func() {
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					s.asked <- conn
				}
			}()
		}
	}()
	return s
}

// answer answers the next question.
func (s *sluggard) answer(t *testing.T, line string) {
	t.Helper()
	select {
	case conn := <-s.asked:
		if _, err := fmt.Fprintln(conn, line); err != nil {
			t.Error(err)
		}
	case <-time.After(limit):
		t.Error("nothing was asked")
	}
}

func (s *sluggard) sensors(t *testing.T) []*energyd.Sensor {
	t.Helper()
	go s.answer(t, `{"domains":[{"name":"package-0","scope":"package","range_uj":9},{"name":"core-0","scope":"core","range_uj":9}]}`)
	return find(t, s.socket)
}

func TestNoJobWaitsForAHelperThatDoesNotAnswer(t *testing.T) {
	slow := startSluggard(t)
	sensors := slow.sensors(t)
	begin := time.Now()
	for _, s := range sensors {
		if r, err := s.Read(t.Context()); !errors.Is(err, power.ErrUnavailable) {
			t.Fatalf("got %+v, %v", r, err)
		}
	}
	if took := time.Since(begin); took < 50*time.Millisecond || took > 2*time.Second {
		t.Errorf("both took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sensors[0].Read(ctx); !errors.Is(err, power.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestFirstAnswerCountsHoweverLate(t *testing.T) {
	slow := startSluggard(t)
	sensors := slow.sensors(t)
	if _, err := sensors[0].Read(t.Context()); !errors.Is(err, power.ErrUnavailable) {
		t.Fatal(err)
	}
	slow.answer(t, `{"domains":[{"name":"package-0","energy_uj":1,"at_ns":1},{"name":"core-0","energy_uj":2,"at_ns":1}]}`)
	first := readSoon(t, sensors[0])
	if r := readSoon(t, sensors[1]); first.Energy != 1 || r.Energy != 2 {
		t.Errorf("read %d and %d", first.Energy, r.Energy)
	}
	// Later on what is new is better.
	for {
		if _, err := sensors[0].Read(t.Context()); errors.Is(err, power.ErrUnavailable) {
			break
		}
	}
	// The answer to the next question is there when that is asked.
	slow.answer(t, `{"domains":[{"name":"package-0","energy_uj":3,"at_ns":2}]}`+"\n"+`{"domains":[{"name":"package-0","energy_uj":4,"at_ns":3}]}`)
	if r := readSoon(t, sensors[0]); r.Energy != 4 {
		t.Errorf("read %d", r.Energy)
	}
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	for _, said := range []string{
		"", "null and void", `{"domains":7}`, `{"domains":[{"scope":"package"}]}`, `{"domains":[{"name":"x","range_uj":-1}]}`,
		`{"domains":[{"name":"x","energy_uj":-1}]}`, `{"domains":[{"name":"x","energy_uj":1e30}]}`, strings.Repeat(" ", 64<<10),
	} {
		slow := startSluggard(t)
		go slow.answer(t, said)
		if s, err := energyd.Sensors(t.Context(), slow.socket); !errors.Is(err, power.ErrUnavailable) {
			t.Errorf("%.30q: %v, %v", said, s, err)
		}
	}
}

func TestWhatWasFoundStandsForAnAnswerThatIsLate(t *testing.T) {
	slow := startSluggard(t)
	sensors := slow.sensors(t)
	go slow.answer(t, `{"domains":[{"name":"package-0","energy_uj":1,"at_ns":1},{"name":"core-0","energy_uj":2,"at_ns":1}]}`)
	first := []power.Reading{readSoon(t, sensors[0]), await(t, sensors[1])}
	<-time.After(20 * time.Millisecond) // until it asks again
	for i, s := range sensors {
		if r := await(t, s); r != first[i] { // Its time is its own: nobody takes it for news.
			t.Errorf("read %+v after %+v", r, first[i])
		}
	}
	slow.answer(t, `{"domains":[{"name":"package-0","energy_uj":3,"at_ns":2}]}`)
	<-time.After(20 * time.Millisecond)
	// The next one is late as well, and then what was late is better than none.
	r := await(t, sensors[0])
	for end := time.Now().Add(limit); r.Energy != 3 && time.Now().Before(end); {
		r = await(t, sensors[0]) // A loaded machine may have had no time to take it in.
	}
	if r.Energy != 3 {
		t.Errorf("read %+v", r)
	}
}

func TestCallerWhoIsGoneCostsNobodyAReading(t *testing.T) {
	h := startHelper(t, socketPath(t), 0, newCounter("package-0", power.ScopePackage, ""))
	s := find(t, h.socket)[0]
	first := readSoon(t, s)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	<-time.After(150 * time.Millisecond) // until it looks again
	if r, err := s.Read(gone); err != nil || r != first {
		t.Errorf("read %+v, %v after %+v", r, err, first)
	}
}

// await reads a sensor that has something to say.
func await(t *testing.T, s *energyd.Sensor) power.Reading {
	t.Helper()
	r, err := s.Read(t.Context())
	if err != nil {
		t.Error(err)
	}
	return r
}
