// Serves Parley's REST paths with the code that protoc-gen-grpc-gateway generates from protos/, and makes calls there. Prints JSON.
package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	parley "example.com/parley/parley/v1"
	"github.com/grpc-ecosystem/grpc-gateway/runtime"
	"google.golang.org/grpc"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func call(method string, address string, body string) map[string]interface{} {
	request, err := http.NewRequest(method, address, strings.NewReader(body))
	check(err)
	request.Header.Set("Authorization", "Bearer "+os.Getenv("KEY"))
	answer, err := http.DefaultClient.Do(request)
	check(err)
	defer answer.Body.Close()
	result := map[string]interface{}{}
	check(json.NewDecoder(answer.Body).Decode(&result))
	return result
}

func main() {
	mux := runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.JSONPb{OrigName: false}))
	options := []grpc.DialOption{grpc.WithInsecure()}
	target := os.Getenv("PARLEY_GRPC")
	check(parley.RegisterChatCompletionsHandlerFromEndpoint(context.Background(), mux, target, options))
	check(parley.RegisterModelsHandlerFromEndpoint(context.Background(), mux, target, options))
	check(parley.RegisterSessionsHandlerFromEndpoint(context.Background(), mux, target, options))
	server := httptest.NewServer(mux)
	defer server.Close()
	question := `{"model": "scripted", "messages": [{"role": "user", "content": "Hello"}]}`
	check(json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"answer":   call("POST", server.URL+"/v1/chat/completions", question),
		"model":    call("GET", server.URL+"/v1/models/scripted", ""),
		"sessions": call("GET", server.URL+"/api/v1/sessions?page_size=1&model=scripted", ""),
	}))
}
