package grpcapi_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/joulemux/joulemux/daemon/grpcapi/computev1"
)

// contract is compute.v1 as clients have it compiled in.
const contract = `
GenerateRequest        1 prompt string | 2 model string | 3 annotations JobAnnotations | 4 options GenerationOptions
JobAnnotations         1 target string | 2 latency_critical bool | 3 prefer_power_efficiency bool | 4 cache_enabled bool | 5 max_latency_ms int32 | 6 max_power_watts int32 | 7 custom map<string,string>
GenerationOptions      1 max_tokens int32 | 2 temperature float | 3 top_p float | 4 top_k int32 | 5 stop repeated string | 6 context_length int32
GenerateResponse       1 response string | 2 backend_used string | 3 routing RoutingMetadata | 4 stats GenerationStats | 5 from_cache bool
GenerateStreamResponse 1 token string | 2 done bool | 3 backend_used string | 4 stats GenerationStats
RoutingMetadata        1 backend string | 2 reason string | 3 estimated_power_watts float | 4 estimated_latency_ms int32 | 5 alternatives repeated string
GenerationStats        1 time_to_first_token_ms int32 | 2 total_time_ms int32 | 3 tokens_generated int32 | 4 tokens_per_second float | 5 energy_wh float
EmbedRequest           1 text string | 2 model string | 3 annotations JobAnnotations
EmbedResponse          1 embedding repeated float | 2 backend_used string | 3 routing RoutingMetadata
ListBackendsRequest    1 type_filter string
ListBackendsResponse   1 backends repeated BackendInfo
BackendInfo            1 id string | 2 type string | 3 name string | 4 hardware string | 5 status BackendStatus | 6 capabilities BackendCapabilities | 7 metrics BackendMetrics
BackendStatus          1 state string | 2 message string | 3 last_check_unix int64
BackendCapabilities    1 generate bool | 2 embed bool | 3 stream bool | 4 models repeated string | 5 max_context int32
BackendMetrics         1 avg_latency_ms int32 | 2 requests_per_minute int32 | 3 error_rate float | 4 power_watts float | 5 loaded_models repeated string
HealthCheckRequest
HealthCheckResponse    1 status string | 2 backend_health map<string,string> | 3 timestamp_unix int64
ExecutePipelineRequest 1 pipeline_id string | 2 input map<string,string> | 3 options PipelineOptions | 4 annotations JobAnnotations
PipelineOptions        1 enable_streaming bool | 2 preserve_context bool | 3 continue_on_error bool | 4 collect_metrics bool | 5 stage_timeout_ms int32
ExecutePipelineResponse 1 pipeline_id string | 2 success bool | 3 final_output map<string,string> | 4 stage_results repeated StageResult | 5 total_time_ms int32 | 6 total_energy_wh float | 7 error string
StageResult            1 stage_id string | 2 backend string | 3 success bool | 4 output string | 5 metadata StageMetadata | 6 error string
StageMetadata          1 start_time_unix int64 | 2 end_time_unix int64 | 3 duration_ms int64 | 4 model string | 5 tokens_in int32 | 6 tokens_out int32 | 7 confidence float | 8 temperature float | 9 fan_speed int32 | 10 forwarded bool | 11 forward_reason string | 12 attempt_count int32
PipelineStreamResponse 1 stage_id string | 2 partial_output string | 3 done bool | 4 stage_result StageResult | 5 final_result ExecutePipelineResponse
`

const methods = `
Generate(GenerateRequest) -> GenerateResponse
GenerateStream(GenerateRequest) -> stream GenerateStreamResponse
Embed(EmbedRequest) -> EmbedResponse
ListBackends(ListBackendsRequest) -> ListBackendsResponse
HealthCheck(HealthCheckRequest) -> HealthCheckResponse
ExecutePipeline(ExecutePipelineRequest) -> ExecutePipelineResponse
ExecutePipelineStream(ExecutePipelineRequest) -> stream PipelineStreamResponse
`

func TestMessagesAreTheContractsToTheFieldNumber(t *testing.T) {
	file := computev1.File_computev1_compute_proto
	for line := range strings.Lines(strings.TrimSpace(contract)) {
		name, fields, _ := strings.Cut(strings.TrimSpace(line), " ")
		message := file.Messages().ByName(protoreflect.Name(name))
		if message == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		var got []string
		for i := range message.Fields().Len() {
			switch f := message.Fields().Get(i); {
			case f.Number() < 20:
				got = append(got, fmt.Sprintf("%d %s %s", f.Number(), f.Name(), kindOf(f)))
			case f.HasOptionalKeyword() || f.ContainingOneof() != nil || f.Enum() != nil:
				t.Errorf("%s.%s is of a kind that the contract has not", name, f.Name())
			}
		}
		if want := strings.TrimSpace(fields); strings.Join(got, " | ") != want {
			t.Errorf("%s has\n%s, want\n%s", name, strings.Join(got, " | "), want)
		}
	}
	if file.Imports().Len() > 0 || file.Enums().Len() > 0 || file.Package() != "compute.v1" {
		t.Error("the file imports others, has enums or is of another package")
	}
}

// kindOf writes a field's type as a .proto does.
func kindOf(f protoreflect.FieldDescriptor) string {
	kind := f.Kind().String()
	if f.Message() != nil {
		kind = string(f.Message().Name())
	}
	switch {
	case f.IsMap():
		return fmt.Sprintf("map<%s,%s>", f.MapKey().Kind(), f.MapValue().Kind())
	case f.IsList():
		return "repeated " + kind
	default:
		return kind
	}
}

func TestMethodsAreTheContracts(t *testing.T) {
	service := computev1.File_computev1_compute_proto.Services().ByName("ComputeService")
	for line := range strings.Lines(strings.TrimSpace(methods)) {
		name, _, _ := strings.Cut(line, "(")
		m := service.Methods().ByName(protoreflect.Name(name))
		if m == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		stream := ""
		if m.IsStreamingServer() {
			stream = "stream "
		}
		if got := fmt.Sprintf("%s(%s) -> %s%s", m.Name(), m.Input().Name(), stream, m.Output().Name()); got != strings.TrimSpace(line) || m.IsStreamingClient() {
			t.Errorf("got %s, want %s", got, line)
		}
	}
}

func TestEveryFieldAndMethodIsDocumented(t *testing.T) {
	text, err := os.ReadFile("computev1/compute.proto")
	if err != nil {
		t.Fatal(err)
	}
	declares := regexp.MustCompile(`^ *(rpc|message|service)\b|^  .* = \d+;$`)
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if declares.MatchString(line) && !strings.HasPrefix(strings.TrimSpace(lines[i-1]), "//") {
			t.Errorf("line %d says nothing of %s", i+1, strings.TrimSpace(line))
		}
	}
}
