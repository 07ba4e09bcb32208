package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

const (
	ctrlC = "\x03"
	ctrlD = "\x04"
)

// whole returns an answer with a text.
func whole(text string) string {
	return fmt.Sprintf("%s{\"text\":%q}\n%s", routedLine, text, endLine)
}

// turns returns what was said in the i-th request, and its options.
func (r *recorded) turns(t *testing.T, i int) (turns []string, options map[string]any) {
	t.Helper()
	all := r.requests()
	if len(all) <= i {
		t.Fatalf("there are only the requests %q", all)
	}
	var asked wire.Chat
	_, body, _ := strings.Cut(all[i], "/chat ")
	if err := json.Unmarshal([]byte(body), &asked); err != nil {
		t.Fatal(err)
	}
	for _, m := range asked.Messages {
		turns = append(turns, m.Role+": "+m.Content)
	}
	return turns, asked.Options
}

func TestEachLineIsATurn(t *testing.T) {
	var n atomic.Int32
	r := replay(t, answers{"POST chat": func(w http.ResponseWriter, _ *http.Request) {
		write(w, whole(fmt.Sprintf("answer %d", n.Add(1))))
	}})
	out, err, code := run(t, r.socket, strings.NewReader("one\n\n  \ntwo\nthree"), "chat", "--quiet", "--model", "m", "--system", "s")
	if out != "answer 1\nanswer 2\nanswer 3\n" || err != "" || code != 0 {
		t.Errorf("it writes %q, says %q and exits with %d", out, err, code)
	}
	turns, options := r.turns(t, 2)
	want := []string{"user: one", "assistant: answer 1", "user: two", "assistant: answer 2", "user: three"}
	if !reflect.DeepEqual(turns, want) || !reflect.DeepEqual(options, map[string]any{"model": "m", "system": "s"}) {
		t.Errorf("it asked %q with %v", turns, options)
	}
}

func TestTurnsWithoutAnAnswerAreForgotten(t *testing.T) {
	var n atomic.Int32
	r := replay(t, answers{"POST chat": func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			write(w, routedLine+endLine)
			return
		}
		write(w, wholeAnswer)
	}})
	if _, err, code := run(t, r.socket, strings.NewReader("one\ntwo\n"), "chat"); code != 0 {
		t.Errorf("it exits with %d and says %q", code, err)
	}
	if turns, _ := r.turns(t, 1); !reflect.DeepEqual(turns, []string{"user: two"}) {
		t.Errorf("it asked %q", turns)
	}
}

func TestChatInJSON(t *testing.T) {
	r := replay(t, answers{"POST chat": says(wholeAnswer)})
	out, err, code := run(t, r.socket, strings.NewReader("one\ntwo\n"), "chat", "--json")
	if out != wholeAnswer+wholeAnswer || err != "" || code != 0 {
		t.Errorf("it writes %q, says %q and exits with %d", out, err, code)
	}
}

func TestAPipedChatEndsAtTheFirstFailure(t *testing.T) {
	r := replay(t, answers{"POST chat": refuses(503, wire.Error{Text: "busy", Code: wire.CodeBusy})})
	_, err, code := run(t, r.socket, strings.NewReader("one\ntwo\n"), "chat")
	if err != "joulemux: busy\n" || code != 7 || len(r.requests()) != 1 {
		t.Errorf("it says %q, exits with %d, and asked %q", err, code, r.requests())
	}
}

func TestAPipedChatEndsWithCtrlC(t *testing.T) {
	h, begun, gone := signalled(routedLine)
	r := replay(t, answers{"POST chat": h})
	p := start(t, r.socket, strings.NewReader("one\ntwo\n"), "chat")
	within(t, begun)
	p.interrupt(t)
	within(t, gone)
	if code := p.exit(t); code != 130 || len(r.requests()) != 1 {
		t.Errorf("it exits with %d, and asked %q", code, r.requests())
	}
}

func TestAPipedChatEndsWithCtrlCBetweenTurns(t *testing.T) {
	r := replay(t, answers{"POST chat": says(wholeAnswer)})
	in, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	p := start(t, r.socket, in, "chat")
	_ = in.Close()
	if _, err := input.WriteString("one\n"); err != nil {
		t.Fatal(err)
	}
	p.err.await(t, "26.0 J") // The answer has ended, and no other line comes.
	p.interrupt(t)
	if code := p.exit(t); code != 130 {
		t.Errorf("it exits with %d and says %q", code, p.err)
	}
}

func TestCtrlCCancelsAnAnswerAndTwiceTheChat(t *testing.T) {
	begun, gone := make(chan struct{}), make(chan struct{})
	var n atomic.Int32
	r := replay(t, answers{"POST chat": func(w http.ResponseWriter, req *http.Request) {
		if n.Add(1) > 1 {
			write(w, whole("second"))
			return
		}
		write(w, routedLine+`{"text":"fir"}`+"\n")
		close(begun)
		<-req.Context().Done()
		close(gone)
	}})
	term := startAtTerminal(t, r.socket, "chat")
	term.out.await(t, "> ")
	term.types(t, "one\n")
	within(t, begun)
	term.out.await(t, "fir")
	term.types(t, ctrlC)
	within(t, gone)
	term.out.await(t, "fir\nCtrl-C again, or Ctrl-D, ends the conversation\n> ")
	term.types(t, "two\n")
	term.out.await(t, "second\nfailed before")
	term.out.await(t, "(12.0 W assumed x 2.17 s)\n> ")
	term.types(t, ctrlC)
	term.out.await(t, "(12.0 W assumed x 2.17 s)\n> \nCtrl-C again, or Ctrl-D, ends the conversation\n> ")
	term.types(t, ctrlC)
	if code := term.exit(t); code != 130 {
		t.Errorf("it exits with %d", code)
	}
	want := []string{"user: one", "assistant: fir", "user: two"}
	if turns, _ := r.turns(t, 1); !reflect.DeepEqual(turns, want) {
		t.Errorf("it asked %q", turns)
	}
}

func TestCtrlCRightAfterACancelEndsTheChat(t *testing.T) {
	h, begun, _ := signalled(routedLine)
	r := replay(t, answers{"POST chat": h})
	term := startAtTerminal(t, r.socket, "chat")
	term.types(t, "one\n")
	within(t, begun)
	term.types(t, ctrlC)
	term.out.await(t, "Ctrl-C again")
	term.types(t, ctrlC)
	if code := term.exit(t); code != 130 {
		t.Errorf("it exits with %d", code)
	}
}

func TestATypedChatSurvivesFailures(t *testing.T) {
	var n atomic.Int32
	r := replay(t, answers{"POST chat": func(w http.ResponseWriter, req *http.Request) {
		if n.Add(1) == 1 {
			write(w, `{"text":"half"}`+"\n"+`{"error":{"error":"backend failed: it died","code":"backend_failed"}}`+"\n")
			return
		}
		write(w, whole("fine"))
	}})
	term := startAtTerminal(t, r.socket, "chat")
	term.types(t, "one\n")
	term.out.await(t, "half\njoulemux: backend failed: it died\n> ")
	term.types(t, "again\n")
	term.out.await(t, "fine\nfailed before")
	term.types(t, ctrlD)
	if code := term.exit(t); code != 0 {
		t.Errorf("it exits with %d", code)
	}
	if turns, _ := r.turns(t, 1); !reflect.DeepEqual(turns, []string{"user: again"}) {
		t.Errorf("it asked %q", turns)
	}
}
