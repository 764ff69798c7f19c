"""A bot that reports when a job has finished, which a web hook says.

uvicorn job_report:app; a job server posts {"job": "42", "state": "done"} to /hook.
"""

from pydantic import BaseModel

from turnwise import Ask, Bot, Runtime, Turn
from turnwise.server.app import create_app

bot = Bot()


class Finished(BaseModel):
    """What the job server posts."""

    job: str
    state: str


@bot.reply
async def reply(turn: Turn) -> str:
    if turn.answers:
        return "It runs again." if turn.answers[0].value == "yes" else "As you like."
    job = f"{turn.session.id}/{turn.n}"  # here you start the job, which is given this name
    return f"Job {job} has begun. I write to you when it has ended."


runtime = Runtime(bot)
app = create_app(runtime)


@app.post("/hook")
async def hook(finished: Finished) -> dict[str, int]:
    """Told as often as the job server likes: one key is said once."""
    session_id = finished.job.rpartition("/")[0]
    if finished.state == "done":
        report = await runtime.say(session_id, f"Job {finished.job} is done.", key=finished.job)
    else:
        again = Ask(f"Job {finished.job} has failed. Again?", choices=["yes", "no"])
        report = await runtime.say(session_id, again, key=finished.job)
    return {"turn": report.n if report is not None else 0}
