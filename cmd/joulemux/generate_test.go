package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

func TestAnswerComesAsItIsMade(t *testing.T) {
	goOn := make(chan struct{})
	r := replay(t, answers{"POST generate": func(w http.ResponseWriter, req *http.Request) {
		write(w, routedLine+`{"text":"Light "}`+"\n")
		until(goOn, req)
		write(w, `{"text":"scatters <b>"}`+"\n"+endLine)
	}})
	p := start(t, r.socket, nil, "generate", "why", "blue?")
	p.out.await(t, "Light ")
	p.err.await(t, "tier battery, ollama-igpu (igpu): least cost, 28.3 J + 2.4 s at 15.0 W predicted (tier battery)\n")
	close(goOn)
	if code := p.exit(t); code != 0 || p.out.String() != "Light scatters <b>" {
		t.Errorf("exits with %d, having written %q", code, p.out)
	}
	const took = "failed before: ollama-npu: connection refused\n" +
		"38 tokens, 21.8 tokens/s, first after 0.41 s, 2.2 s in all; 26.0 J estimated, 0.685 J/token (12.0 W assumed x 2.17 s)\n"
	if !strings.HasSuffix(p.err.String(), took) {
		t.Errorf("it says %q", p.err)
	}
	if want := `POST /joulemux/v1/generate {"prompt":"why blue?"}`; r.requests()[0] != want {
		t.Errorf("it asked %s, want %s", r.requests()[0], want)
	}
}

func TestFallbackIsShown(t *testing.T) {
	r := replay(t, answers{"POST generate": says(routedLine + fallbackLine + textLines + endLine)})
	_, err, _ := run(t, r.socket, nil, "generate", "x")
	if !strings.Contains(err, "\nthat failed, now tier battery, ollama-cpu (cpu): only candidate\n") {
		t.Errorf("it says %q", err)
	}
}

func TestUnknownEnergyIsNoZero(t *testing.T) {
	r := replay(t, answers{"POST generate": says(`{"end":{"energy_quality":"unknown","energy_wh":0,"tokens_generated":1}}` + "\n")})
	_, err, _ := run(t, r.socket, nil, "generate", "x")
	if want := "1 tokens, first after 0.00 s, 0.0 s in all; energy unknown\n"; err != want {
		t.Errorf("it says %q, want %q", err, want)
	}
}

func TestWhatWasMeasuredIsSaidInShort(t *testing.T) {
	for end, want := range map[string]string{
		`"energy_quality":"measured","energy_joules":26.1,"joules_per_token":0.687,"energy_scope":"dgpu+package","energy_source":"nvml + rapl","energy_load_joules":4.2`: "26.1 J measured, 0.687 J/token (dgpu+package by nvml + rapl), 4.20 J of it to load",
		`"energy_quality":"derived","energy_joules":0.3,"joules_per_token":0.0075,"energy_scope":"package","energy_source":"rapl","energy_load_joules":0`:                "0.30 J derived, 0.00750 J/token (package by rapl)",
		`"energy_quality":"none","energy_source":"remote"`: "energy none (remote)",
	} {
		r := replay(t, answers{"POST generate": says(`{"end":{` + end + `}}` + "\n")})
		if _, err, _ := run(t, r.socket, nil, "generate", "x"); err != "0 tokens, first after 0.00 s, 0.0 s in all; "+want+"\n" {
			t.Errorf("it says %q, want %q", err, want)
		}
	}
}

func TestQuietSaysNothingButTheAnswer(t *testing.T) {
	r := replay(t, answers{"POST generate": says(routedLine + fallbackLine + textLines + endLine)})
	out, err, code := run(t, r.socket, nil, "generate", "--quiet", "x")
	if out != "Light scatters <b>" || err != "" || code != 0 {
		t.Errorf("it writes %q, says %q and exits with %d", out, err, code)
	}
}

func TestJSONIsTheEventsAsTheyCome(t *testing.T) {
	r := replay(t, answers{"POST generate": says(wholeAnswer)})
	out, err, code := run(t, r.socket, nil, "generate", "--json", "x")
	if out != wholeAnswer || err != "" || code != 0 {
		t.Errorf("it writes %q, says %q and exits with %d", out, err, code)
	}
}

func TestPromptsComeFromStandardInput(t *testing.T) {
	for _, args := range [][]string{{"generate"}, {"generate", "-"}} {
		r := replay(t, answers{"POST generate": says(wholeAnswer)})
		_, err, code := run(t, r.socket, strings.NewReader("two\nlines\n"), args...)
		if want := `POST /joulemux/v1/generate {"prompt":"two\nlines\n"}`; code != 0 || r.requests()[0] != want {
			t.Errorf("%v asks %q, says %q and exits with %d", args, r.requests(), err, code)
		}
	}
}

func TestHugePromptsAreRefusedHere(t *testing.T) {
	_, err, code := run(t, "/nowhere", io.LimitReader(endless('x'), maxPrompt+1), "generate")
	if code != 2 || err != "joulemux: the prompt is larger than 64 MiB\n" {
		t.Errorf("says %q and exits with %d", err, code)
	}
}

// endless reads as one byte for ever.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

func TestOptionsAreOnTheWireByTheirNames(t *testing.T) {
	for _, c := range []struct {
		args string
		want map[string]any
	}{
		{"--model m --target npu", map[string]any{"model": "m", "target": "npu"}},
		{"--system be-brief", map[string]any{"system": "be-brief"}},
		{"--class interactive", map[string]any{"class": "interactive"}},
		{"--background", map[string]any{"class": "background"}},
		{"--class interactive --background", map[string]any{"class": "background"}},
		{"--latency-critical --power-efficient=false", map[string]any{"latency_critical": true, "prefer_power_efficiency": false}},
		{"--max-latency 1.5s --deadline 2m", map[string]any{"max_latency_ms": 1500.0, "deadline_ms": 120000.0}},
		{"--max-power 15W", map[string]any{"max_power_watts": 15.0}},
		{"--max-power 7.5", map[string]any{"max_power_watts": 7.5}},
		{"--max-tokens 9 --top-k 40 --context-length 4096", map[string]any{"max_tokens": 9.0, "top_k": 40.0, "context_length": 4096.0}},
		{"--temperature 0 --top-p 0.9", map[string]any{"temperature": 0.0, "top_p": 0.9}},
		{"--stop a,b --stop c", map[string]any{"stop": []any{"a,b", "c"}}},
	} {
		r := replay(t, answers{"POST generate": says(wholeAnswer)})
		_, err, code := run(t, r.socket, nil, append(strings.Fields("generate "+c.args), "x")...)
		if code != 0 {
			t.Errorf("%s exits with %d: %s", c.args, code, err)
			continue
		}
		var asked wire.Generate
		_, body, _ := strings.Cut(r.requests()[0], "/generate ")
		if err := json.Unmarshal([]byte(body), &asked); err != nil || !reflect.DeepEqual(asked.Options, c.want) {
			t.Errorf("%s asks for %v, want %v", c.args, asked.Options, c.want)
		}
	}
}

func TestCtrlCCancelsTheJob(t *testing.T) {
	h, begun, gone := signalled(routedLine + `{"text":"Light "}` + "\n")
	r := replay(t, answers{"POST generate": h})
	p := start(t, r.socket, nil, "generate", "x")
	within(t, begun)
	p.out.await(t, "Light ")
	p.interrupt(t)
	within(t, gone)
	if code := p.exit(t); code != 130 || p.out.String() != "Light " || !strings.HasSuffix(p.err.String(), "joulemux: interrupted\n") {
		t.Errorf("it exits with %d, having written %q and %q", code, p.out, p.err)
	}
}

func TestCtrlCBeforeTheAnswerBegins(t *testing.T) {
	asked := make(chan struct{})
	r := replay(t, answers{"POST generate": func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}})
	p := start(t, r.socket, nil, "generate", "--json", "x")
	within(t, asked)
	p.interrupt(t)
	if code := p.exit(t); code != 130 || p.out.String() != `{"error":{"error":"interrupted","code":"interrupted"}}`+"\n" {
		t.Errorf("it exits with %d, having written %q", code, p.out)
	}
}

func TestAnswersWithoutAnEndAreBroken(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"the stream ends":      says(routedLine + textLines),
		"nothing comes at all": says(""),
		"a line breaks off":    says(routedLine + textLines + `{"text":"and th`),
		"a line is no JSON":    says(routedLine + textLines + "<html>\n" + endLine),
		"the connection is closed": func(w http.ResponseWriter, _ *http.Request) {
			write(w, routedLine+textLines)
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := replay(t, answers{"POST generate": h})
			_, err, code := run(t, r.socket, nil, "generate", "x")
			if code != 1 || !strings.Contains(err, "joulemux: the answer broke off: ") {
				t.Errorf("exits with %d and says %q", code, err)
			}
		})
	}
}

func TestOddEventsAreNoHarm(t *testing.T) {
	r := replay(t, answers{"POST generate": says(`{"news":1}` + "\n" + `{"routed":{"tier":7,"reason":null}}` + "\n" +
		`{"text":"x"}` + "\n" + `{"end":{"tokens_generated":"many","failed_attempts":"none"}}`)})
	if out, err, code := run(t, r.socket, nil, "generate", "x"); out != "x" || code != 0 {
		t.Errorf("it writes %q, says %q and exits with %d", out, err, code)
	}
}

func TestLongLinesPass(t *testing.T) {
	text := strings.Repeat("x", 1<<20)
	r := replay(t, answers{"POST generate": says(fmt.Sprintf("{\"text\":%q}\n%s", text, endLine))})
	if out, err, code := run(t, r.socket, nil, "generate", "x"); out != text || code != 0 {
		t.Errorf("it writes %d bytes, says %q and exits with %d", len(out), err, code)
	}
}

func TestFilesGetControlCharacters(t *testing.T) {
	r := replay(t, answers{"POST generate": says(`{"text":"a\u001b[2Jb\u009b\r\n"}` + "\n" + endLine)})
	if out, _, _ := run(t, r.socket, nil, "generate", "x"); out != "a\x1b[2Jb\u009b\r\n" {
		t.Errorf("it writes %q", out)
	}
}
