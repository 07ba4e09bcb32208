package grpcapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
	"github.com/joulemux/joulemux/daemon/token"
	"github.com/joulemux/joulemux/power"
)

// lateServer answers only once it is up.
type lateServer struct {
	up   <-chan struct{}
	next http.Handler
}

func (l lateServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case <-l.up:
		l.next.ServeHTTP(w, r)
	default:
		http.Error(w, "not yet", http.StatusBadGateway)
	}
}

// run runs a program to its end.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(within(t), name, args...).CombinedOutput()
	return string(out), err
}

func TestGrpcurlListsAndCalls(t *testing.T) {
	grpcurl := filepath.Join(t.TempDir(), "grpcurl")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-modfile=.ci/tools.mod", "-o", grpcurl, "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := newRig(t, place{power.NVIDIA, scripted(says(piece("It is "), piece("4."), last))}, place{power.NPU, scripted(says(piece("4"), last))})
	if out, err := run(t, grpcurl, "-plaintext", r.addr, "list"); err != nil || out != "compute.v1.ComputeService\ngrpc.health.v1.Health\ngrpc.reflection.v1.ServerReflection\ngrpc.reflection.v1alpha.ServerReflection\n" {
		t.Errorf("list: %v, %s", err, out)
	}
	for name, c := range map[string]struct{ body, method, want string }{
		"an answer":       {`{"prompt":"What is 2+2?","model":"m"}`, "Generate", `"backendUsed": "ollama-nvidia"`},
		"the thriftiest":  {`{"prompt":"Hello!","model":"m","annotations":{"prefer_power_efficiency":true}}`, "Generate", `"backendUsed": "ollama-npu"`},
		"the fastest":     {`{"prompt":"Quick question","model":"m","annotations":{"latency_critical":true}}`, "Generate", `"response": "It is 4."`},
		"a stream":        {`{"prompt":"What is 2+2?","model":"m"}`, "GenerateStream", `"done": true`},
		"a filtered list": {`{"type_filter":"npu"}`, "ListBackends", `"id": "ollama-npu"`},
	} {
		out, err := run(t, grpcurl, "-plaintext", "-d", c.body, r.addr, "compute.v1.ComputeService/"+c.method)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
	if out, err := run(t, grpcurl, "-plaintext", r.addr, "describe", "compute.v1.GenerationStats"); err != nil || !strings.Contains(out, "string energy_quality = 27;") {
		t.Errorf("describe: %v, %s", err, out)
	}
}

func TestCurlSpeaksJSON(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(piece("4."), last))})
	for _, version := range []string{"--http1.1", "--http2-prior-knowledge"} {
		out, err := run(t, "curl", "-sS", "--noproxy", "*", version, "http://"+r.addr+prefix+"Generate",
			"-H", "Content-Type: application/json", "-d", `{"prompt":"What is 2+2?","model":"m","options":{"max_tokens":9}}`)
		var a struct {
			Response, BackendUsed string
			Stats                 struct{ TokensGenerated int }
			Routing               struct{ Reason string }
		}
		if json.Unmarshal([]byte(out), &a) != nil || err != nil || a.Response != "4." || a.BackendUsed != "ollama-cpu" || a.Stats.TokensGenerated != 3 || a.Routing.Reason == "" {
			t.Errorf("%s: %v, %s", version, err, out)
		}
	}
}

func TestOtherProtocolsStreamToo(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(piece("It "), piece("is."), last))})
	h1 := &http.Client{Transport: new(http.Transport)}
	t.Cleanup(h1.CloseIdleConnections)
	for name, options := range map[string][]connect.ClientOption{
		"gRPC-Web in protobuf":     {connect.WithGRPCWeb()},
		"gRPC-Web in JSON":         {connect.WithGRPCWeb(), connect.WithProtoJSON()},
		"Connect":                  nil,
		"Connect in JSON":          {connect.WithProtoJSON()},
		"Connect, packed requests": {connect.WithSendGzip()},
	} {
		client := computev1.NewComputeServiceClient(h1, "http://"+r.addr, options...)
		s, err := client.GenerateStream(within(t), ask())
		if err != nil {
			t.Fatal(err)
		}
		text, done := "", false
		for s.Receive() {
			text += s.Msg().Token
			done = s.Msg().Done
		}
		if s.Err() != nil || text != "It is." || !done {
			t.Errorf("%s: %q, done %v, %v", name, text, done, s.Err())
		}
		_ = s.Close()
		_, err = client.Generate(within(t), &computev1.GenerateRequest{Prompt: "Why?", Model: "nope"})
		if connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForeignPagesAreRefusedInTheWordsOfTheirProtocol(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(last))})
	for _, header := range []string{"Origin: https://evil.example.com", "Origin: null"} {
		status, head, text := post(t, r, "Generate", "application/json", []byte(`{"prompt":"x","model":"m"}`), header)
		if status != http.StatusForbidden || !strings.Contains(text, `"code":"permission_denied"`) || head.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s in JSON: %d %v %s", header, status, head, text)
		}
		status, head, text = post(t, r, "Generate", "application/grpc-web+proto", nil, header)
		if status != http.StatusOK || !strings.Contains(strings.ToLower(text)+head.Get("Grpc-Status"), "7") {
			t.Errorf("%s in gRPC-Web: %d %v %q", header, status, head, text)
		}
	}
	status, head, _ := post(t, r, "Generate", "application/json", []byte(`{"prompt":"x","model":"m"}`), "Origin: http://localhost:3000")
	if status != http.StatusOK || head.Get("Access-Control-Allow-Origin") != "http://localhost:3000" || !strings.Contains(head.Get("Access-Control-Expose-Headers"), "Grpc-Status") {
		t.Errorf("a page of this machine: %d %v", status, head)
	}
	r.door.Configure(door.Settings{Origins: []string{"https://chat.example.com"}})
	if status, _, _ := post(t, r, "Generate", "application/json", []byte(`{"prompt":"x","model":"m"}`), "Origin: https://chat.example.com"); status != http.StatusOK {
		t.Errorf("an origin that is configured: %d", status)
	}
	out, err := run(t, "curl", "-sS", "--noproxy", "*", "-i", "-X", "OPTIONS", "-H", "Origin: http://localhost:3000", "-H", "Access-Control-Request-Headers: content-type,x-grpc-web", "http://"+r.addr+prefix+"Generate")
	if err != nil || !strings.Contains(out, "204 No Content") || !strings.Contains(out, "Access-Control-Allow-Headers: content-type,x-grpc-web") {
		t.Errorf("a browser that asks before it asks: %v, %s", err, out)
	}
	out, err = run(t, "curl", "-sS", "--noproxy", "*", "-H", "Host: evil.example.com", "-H", "Content-Type: application/json", "-d", "{}", "http://"+r.addr+prefix+"HealthCheck")
	if err != nil || !strings.Contains(out, "permission_denied") {
		t.Errorf("a name that was made to point here: %v, %s", err, out)
	}
}

func TestATokenForSomethingElseCallsNothing(t *testing.T) {
	server := scripted(says(last))
	r := newRig(t, place{power.CPU, server})
	tokens := token.Open(filepath.Join(t.TempDir(), "tokens"))
	r.door.Configure(door.Settings{Tokens: tokens})
	methods := computev1.File_computev1_compute_proto.Services().Get(0).Methods()
	for _, right := range []token.Right{token.Metrics, token.Control, token.Admin} {
		secret, err := tokens.Create(token.Token{Name: string(right), Rights: []token.Right{right}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range methods.Len() {
			name := string(methods.Get(i).Name())
			status, _, text := post(t, r, name, "application/json", []byte(`{}`), "Authorization: Bearer "+secret)
			if status != http.StatusForbidden || !strings.Contains(text, "permission_denied") {
				t.Errorf("with a token for %s, %s is answered %d %s", right, name, status, text)
			}
		}
		ctx := metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+secret)
		_, err = r.calls.generate(ctx, ask())
		fails(t, "Generate over gRPC", err, 7, `takes the right "generate"`)
		if _, err := grpc_health_v1.NewHealthClient(r.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
			t.Errorf("that it is there is told nobody: %v", err)
		}
	}
	if asked := server.bodies(); len(asked) != 0 {
		t.Errorf("the backend was asked %q", asked)
	}
}

func TestWhatIsNotThereIsTold(t *testing.T) {
	r := newRig(t)
	out, err := run(t, "curl", "-sS", "--noproxy", "*", "-w", " %{http_code}", "http://"+r.addr+"/health")
	if err != nil || !strings.HasSuffix(out, " 404") || !strings.Contains(out, "there is no /health here") {
		t.Errorf("got %v, %s", err, out)
	}
	err = r.conn.Invoke(within(t), "/other.v1.Service/Method", ask(), new(computev1.GenerateResponse))
	fails(t, "another service", err, 12, "other.v1.Service")
}

func TestLimitOfRequestsCanChange(t *testing.T) {
	r := newRig(t, place{power.CPU, scripted(says(last))})
	q := &computev1.GenerateRequest{Prompt: strings.Repeat("x", 2000), Model: "m"}
	if _, err := r.calls.generate(within(t), q); err != nil {
		t.Error(err)
	}
	r.Limit(1000)
	_, err := r.calls.generate(within(t), q)
	fails(t, "a request beyond the limit", err, 8, "")
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	_, err = r.calls.generate(ctx, q)
	fails(t, "a client who has left", err, 1, "")
}
