package nvml

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/joulemux/joulemux/power"
	"github.com/joulemux/joulemux/power/helper"
)

// script plays the program: a test sees each question, and says when and what
// it answers.
type script struct {
	*net.UnixListener
	conn  net.Conn
	lines *bufio.Reader
}

// startScript returns the script and a sensor that talks to it.
func startScript(t *testing.T, sys fstest.MapFS) (*script, *Sensor) {
	t.Helper()
	path, l := listen(t)
	return &script{UnixListener: l}, sensorAt(t, sys, path)
}

func sensorAt(t *testing.T, sys fstest.MapFS, path string) *Sensor {
	t.Helper()
	sensors, err := Find(sys, path)
	if err != nil || len(sensors) != 1 {
		t.Fatalf("%d sensors, %v", len(sensors), err)
	}
	t.Cleanup(sensors[0].Rest)
	return sensors[0]
}

// accept waits for the next connection.
func (s *script) accept(t *testing.T) {
	t.Helper()
	if err := s.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	conn, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s.conn, s.lines = conn, bufio.NewReader(conn)
}

// expectNobody checks that nobody has connected.
func (s *script) expectNobody(t *testing.T) {
	t.Helper()
	if err := s.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accept(); err == nil {
		t.Error("somebody connected")
	}
}

// hear waits for a question.
func (s *script) hear(t *testing.T) {
	t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if line, err := s.lines.ReadString('\n'); err != nil || line != readGPU+"\n" {
		t.Fatalf("heard %q, %v", line, err)
	}
}

func (s *script) say(t *testing.T, line string) {
	t.Helper()
	if _, err := fmt.Fprint(s.conn, line); err != nil {
		t.Fatal(err)
	}
}

// count is an answer of a time.
func count(at time.Time, millijoules int) string {
	return fmt.Sprintf(`{"at_ns":%d,"energy_mj":%d}`+"\n", helper.ToWire(at), millijoules)
}

// answering reads the sensor, with the script answering in time.
func (s *script) answering(t *testing.T, sensor *Sensor, line string) (power.Reading, error) {
	t.Helper()
	if s.conn == nil {
		// The first look is over before a test could accept: the answer to it is
		// what the second returns.
		expectUnavailable(t, sensor)
		s.accept(t)
		s.hear(t)
		s.say(t, line)
		return wait(t, sensor, 10*time.Second)
	}
	s.say(t, line) // It is there when it is asked for.
	r, err := wait(t, sensor, 10*time.Second)
	s.hear(t)
	return r, err
}

// wait reads the sensor with another patience than it has.
func wait(t *testing.T, sensor *Sensor, patience time.Duration) (power.Reading, error) {
	t.Helper()
	usual := sensor.patience
	sensor.patience = patience
	defer func() { sensor.patience = usual }()
	return sensor.Read(t.Context())
}

// readAt checks a reading. Its time has crossed twice, and is off by what a loaded
// machine does between two looks at the clock.
func readAt(t *testing.T, r power.Reading, err error, at time.Time, energy power.Energy) {
	t.Helper()
	if off := r.At.Sub(at).Abs(); err != nil || off > time.Second || r.Energy != energy {
		t.Errorf("got %v at %v (%v off), %v; want %v", r.Energy, r.At, off, err, energy)
	}
}

func expectUnavailable(t *testing.T, sensor *Sensor) {
	t.Helper()
	start := time.Now()
	if r, err := sensor.Read(t.Context()); !errors.Is(err, power.ErrUnavailable) {
		t.Errorf("got %+v, %v", r, err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func awakeGPU() fstest.MapFS { return machine(map[string]string{gpu: "active"}) }

func TestDomainOfAGPU(t *testing.T) {
	want := power.Domain{
		Name: "gpu 0000:01:00.0", Scope: power.ScopeDiscreteGPU, Source: "nvml",
		Device: gpu, Cumulative: true, Period: 100 * time.Millisecond,
	}
	if got := sensorAt(t, awakeGPU(), "").Domain(); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestSleepingGPUIsNotAskedAbout(t *testing.T) {
	sys := machine(map[string]string{gpu: "suspended"})
	s, sensor := startScript(t, sys)
	if _, err := sensor.Read(t.Context()); !errors.Is(err, power.ErrAsleep) {
		t.Errorf("got %v", err)
	}
	s.expectNobody(t)

	put(sys, gpu, "active")
	if r, err := s.answering(t, sensor, count(time.Now(), 1)); err != nil {
		t.Errorf("awake: %+v, %v", r, err)
	}
	put(sys, gpu, "suspended")
	if _, err := sensor.Read(t.Context()); !errors.Is(err, power.ErrAsleep) {
		t.Errorf("got %v", err)
	}
	if _, err := s.lines.ReadByte(); err == nil {
		t.Error("it asks, or stays, while the GPU sleeps")
	}
}

func TestWithoutUserManagerThereIsNoSensor(t *testing.T) {
	path, l := listen(t)
	_ = l.Close() // And with it, the path.
	sensor := sensorAt(t, awakeGPU(), path)
	expectUnavailable(t, sensor)
	expectUnavailable(t, sensorAt(t, awakeGPU(), ""))

	// One that is started later is taken in at once.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &script{UnixListener: l}
	taken := time.Now()
	r, err := s.answering(t, sensor, count(taken, 7))
	readAt(t, r, err, taken, 7000)
}

func TestFirstAnswerMayBeLate(t *testing.T) {
	s, sensor := startScript(t, awakeGPU())
	expectUnavailable(t, sensor) // NVML is being opened.
	s.accept(t)
	s.hear(t)
	expectUnavailable(t, sensor) // It still is, and is asked nothing else.
	taken := time.Now()
	s.say(t, count(taken, 5))
	r, err := wait(t, sensor, 10*time.Second)
	readAt(t, r, err, taken, 5000)

	taken = time.Now()
	r, err = s.answering(t, sensor, count(taken, 6))
	readAt(t, r, err, taken, 6000)
}

func TestLateAnswersAreNotTakenForLaterOnes(t *testing.T) {
	s, sensor := startScript(t, awakeGPU())
	first := time.Now()
	r, err := s.answering(t, sensor, count(first, 1))
	readAt(t, r, err, first, 1000)

	// Meanwhile the last reading stands, with its own time.
	r, err = sensor.Read(t.Context())
	readAt(t, r, err, first, 1000)
	s.hear(t)
	second := time.Now()
	s.say(t, count(second, 2)[:20]) // And the rest is later still.
	r, err = sensor.Read(t.Context())
	readAt(t, r, err, first, 1000)
	s.say(t, count(second, 2)[20:])

	third := time.Now()
	r, err = s.answering(t, sensor, count(third, 3))
	readAt(t, r, err, third, 3000)

	// If the newest is late again, the one that was late is newer than none.
	_, err = sensor.Read(t.Context())
	s.hear(t)
	fourth := time.Now()
	s.say(t, count(fourth, 4))
	if err != nil {
		t.Error(err)
	}
	r, err = wait(t, sensor, time.Second)
	readAt(t, r, err, fourth, 4000)
}

func TestRestLetsGo(t *testing.T) {
	s, sensor := startScript(t, awakeGPU())
	if _, err := s.answering(t, sensor, count(time.Now(), 1)); err != nil {
		t.Fatal(err)
	}
	sensor.Rest()
	sensor.Rest()
	if _, err := s.lines.ReadByte(); err == nil {
		t.Error("it stays")
	}
	s.conn = nil
	taken := time.Now()
	r, err := s.answering(t, sensor, count(taken, 2))
	readAt(t, r, err, taken, 2000)
}

func TestConnectionThatWasClosedForItsSilenceIsRenewed(t *testing.T) {
	s, sensor := startScript(t, awakeGPU())
	if _, err := s.answering(t, sensor, count(time.Now(), 1)); err != nil {
		t.Fatal(err)
	}
	_ = s.conn.Close()
	s.conn = nil
	taken := time.Now()
	r, err := s.answering(t, sensor, count(taken, 2))
	readAt(t, r, err, taken, 2000)
}

func TestGPUWithoutCounterIsKnownByItsAnswer(t *testing.T) {
	s, sensor := startScript(t, awakeGPU())
	r, err := s.answering(t, sensor, fmt.Sprintf(`{"at_ns":%d,"power_mw":30000}`+"\n", helper.ToWire(time.Now())))
	if err != nil || r.Draw != 30*power.Watt || r.Energy != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	sensor.Rest()
	if d := sensor.Domain(); d.Cumulative || d.Period != time.Second {
		t.Errorf("the domain is %+v", d)
	}
}

func TestWhatCannotBeReadIsLeftAlone(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *script){
		"it says so": func(t *testing.T, s *script) {
			t.Helper()
			s.say(t, `{"error":"Driver/library version mismatch","kind":"unavailable"}`+"\n")
		},
		"it crashes":      func(_ *testing.T, s *script) { _ = s.conn.Close() },
		"it is not it":    func(t *testing.T, s *script) { t.Helper(); s.say(t, "HTTP/1.1 400 Bad Request\r\n") },
		"it says nothing": func(t *testing.T, s *script) { t.Helper(); s.say(t, "{}\n") },
	} {
		t.Run(name, func(t *testing.T) {
			s, sensor := startScript(t, awakeGPU())
			expectUnavailable(t, sensor)
			s.accept(t)
			s.hear(t)
			end(t, s)
			if _, err := wait(t, sensor, 10*time.Second); !errors.Is(err, power.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			if _, err := s.lines.ReadByte(); err == nil {
				t.Error("it stays")
			}
			expectUnavailable(t, sensor)
			sensor.Rest()
			expectUnavailable(t, sensor)
			s.expectNobody(t)
		})
	}
}

func TestGPUThatOnlySleepsIsAskedAboutAgain(t *testing.T) {
	s, sensor := startScript(t, awakeGPU())
	if _, err := s.answering(t, sensor, `{"error":"another GPU is suspended","kind":"asleep"}`+"\n"); !errors.Is(err, power.ErrAsleep) {
		t.Errorf("got %v", err)
	}
	s.conn = nil
	taken := time.Now()
	r, err := s.answering(t, sensor, count(taken, 2))
	readAt(t, r, err, taken, 2000)
}

func TestLookEndsWithItsContext(t *testing.T) {
	_, sensor := startScript(t, awakeGPU())
	sensor.patience = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := sensor.Read(ctx); !errors.Is(err, power.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestLookThatIsLateFromTheStartIsOnlyLate(t *testing.T) {
	s, sensor := startScript(t, awakeGPU())
	if _, err := wait(t, sensor, -time.Second); !errors.Is(err, power.ErrUnavailable) || !strings.Contains(err.Error(), "not been read yet") {
		t.Errorf("got %v", err)
	}
	taken := time.Now()
	r, err := s.answering(t, sensor, count(taken, 1))
	readAt(t, r, err, taken, 1000)
}

func TestWhatIsToldAgainIsOfTheSameTime(t *testing.T) {
	for rule, ahead := range map[string]time.Duration{"always": 0, "although the other side's clock is ahead": 2 * time.Second} {
		s, sensor := startScript(t, awakeGPU())
		line := count(time.Now().Add(ahead), 1)
		first, err := s.answering(t, sensor, line)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if again, err := s.answering(t, sensor, line); err != nil || again != first {
				t.Fatalf("%s: got %+v and then %+v, %v", rule, first, again, err)
			}
		}
	}
}

func TestSensorTalksToServer(t *testing.T) {
	l := newSteady()
	path, ended := startServer(t, awakeGPU(), l)
	sensor := sensorAt(t, awakeGPU(), path)
	var readings []power.Reading
	for len(readings) < 2 {
		if r, err := sensor.Read(t.Context()); err == nil && (len(readings) == 0 || r.At.After(readings[0].At)) {
			readings = append(readings, r)
		}
	}
	elapsed, energy := readings[1].At.Sub(readings[0].At), readings[1].Energy-readings[0].Energy
	if want := (30 * power.Watt).For(elapsed); (energy-want).Joules() > 0.5 || (want-energy).Joules() > 0.5 {
		t.Errorf("%v in %v", energy, elapsed)
	}
	sensor.Rest()
	if err := await(t, ended); err != nil || l.closed != 1 {
		t.Errorf("%v, closed %d times", err, l.closed)
	}
}
