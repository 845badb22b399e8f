// Calls Parley from Java with the code that protoc and protoc-gen-grpc-java generate from protos/. Prints JSON.

import com.google.gson.Gson;
import com.google.protobuf.ByteString;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import parley.v1.ChatCompletion;
import parley.v1.ChatCompletionChunk;
import parley.v1.ChatCompletionsGrpc;
import parley.v1.ContentPart;
import parley.v1.CreateChatCompletionRequest;
import parley.v1.ImageContent;
import parley.v1.Message;

public final class Client {
  public static void main(String[] arguments) throws InterruptedException, IOException {
    var metadata = new Metadata();
    var authorization = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    metadata.put(authorization, "Bearer " + System.getenv("KEY"));
    var file = Path.of(System.getenv("PROTOS"), "parley", "v1", "parley_grpc_service_config.json");
    @SuppressWarnings("unchecked")
    Map<String, ?> config = new Gson().fromJson(Files.readString(file), Map.class);
    var channel = ManagedChannelBuilder.forTarget(System.getenv("PARLEY_GRPC"))
        .usePlaintext()
        .defaultServiceConfig(config)
        .enableRetry()
        .build();
    var chat = MetadataUtils.attachHeaders(ChatCompletionsGrpc.newBlockingStub(channel), metadata)
        .withDeadlineAfter(1, TimeUnit.MINUTES);
    var png = ByteString.copyFrom(new byte[] {(byte) 0x89, 'P', 'N', 'G'});
    var image = ImageContent.newBuilder().setData(png).setMimeType("image/png");
    var question = Message.newBuilder().setRole("user")
        .addParts(ContentPart.newBuilder().setText("Hello"))
        .addParts(ContentPart.newBuilder().setImage(image));
    var request = CreateChatCompletionRequest.newBuilder()
        .setModel("scripted")
        .addMessages(Message.newBuilder().setRole("system").setText("Be brief."))
        .addMessages(question)
        .addStopSequences("END")
        .build();
    ChatCompletion answer = chat.createChatCompletion(request);
    var streamed = new StringBuilder();
    chat.streamChatCompletion(request).forEachRemaining((ChatCompletionChunk chunk) ->
        chunk.getChoicesList().forEach(choice -> streamed.append(choice.getDelta().getContent())));
    System.out.printf("{\"whole\": \"%s\", \"streamed\": \"%s\", \"total\": %d}%n",
        answer.getChoices(0).getMessage().getText(), streamed, answer.getUsage().getTotalTokens());
    channel.shutdownNow().awaitTermination(1, TimeUnit.MINUTES);
  }
}
