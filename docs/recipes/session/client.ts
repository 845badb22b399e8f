// Asks two questions in one session; the second request has only the second question.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: process.env.KEY });
let session: string | null = null;
for (const question of ["What is the capital of France?", "And of Germany?"]) {
  const { data, response } = await client.chat.completions
    .create(
      { model: "smollm2", messages: [{ role: "user", content: question }] },
      { headers: session ? { "X-Chat-Session-ID": session } : {} },
    )
    .withResponse();
  session = response.headers.get("x-chat-session-id");
  console.log(data.choices[0]?.message.content);
}
