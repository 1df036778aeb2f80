"""Hand-made files of public data sets, in exactly their formats and small enough to read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.logs import (
    AliCcpConfig,
    CsvConfig,
    KuaiLiveConfig,
    KuaiLiveM3Config,
    KuaiRandConfig,
    TaobaoConfig,
    Wechat2021Config,
)
from pipelines.logs.sources.mapped import MappedFiles

MAY_5 = 1_746_374_400_000  # 2025-05-05 00:00 in China, Unix milliseconds
ENCRYPTED = ",".join(f"onehot_feat{number}" for number in range(7))

KUAILIVE = {
    "click.csv": """user_id,live_id,streamer_id,timestamp,watch_live_time
1,900,70,1746374400022,2852
2,901,71,1746374460000,
1,901,71,1746378000000,61000
""",
    "negative.csv": """user_id,live_id,streamer_id,timestamp
1,902,72,1746374400022
2,900,70,1746374460000
""",
    "comment.csv": "user_id,live_id,streamer_id,timestamp\n1,900,70,1746374401000\n",
    "like.csv": "user_id,live_id,streamer_id,timestamp\n1,900,70,1746374402000\n1,900,70,1746374402500\n",
    "gift.csv": "user_id,live_id,streamer_id,timestamp,gift_price\n1,901,71,1746378030000,52\n",
    "room.csv": """p_date,live_id,live_type,streamer_id,start_timestamp,end_timestamp,live_content_category,live_name_id
20250505,900,1,70,1746370800000,1746378000000,shop,0
20250505,901,1,71,1746374400000,1746460800000,,5
20250506,901,1,71,1746460800000,1746464400000,,5
20250505,902,4,72,1746374400000,1746374500000,game,7
""",
    "user.csv": "user_id,age,gender,country,device_brand,device_price,reg_timestamp,fans_num,follow_num,"
    "first_watch_live_timestamp,accu_watch_live_cnt,accu_watch_live_duration,is_live_streamer,is_photo_author,"
    f"{ENCRYPTED}\n1,18-23,M,China,DESKTOP,0,2023-05-03,0-10,10-100,2023-05-03,0-50000,0-1000000000,0,0,0,1,0,0,0,0,0\n",
    "streamer.csv": "streamer_id,gender,age,country,device_brand,device_price,live_operation_tag,fans_user_num,"
    "fans_group_fans_num,follow_user_num,first_live_timestamp,accu_live_cnt,accu_live_duration,accu_play_cnt,"
    f"accu_play_duration,reg_timestamp,{ENCRYPTED}\n"
    "70,M,24-30,China,APPLE,5000+,Relationship,10000-100000,0-10,1000-10000,2018-02-04,100-500,500000000-1000000000,"
    "100000-500000,50000000000-100000000000,2014-07-03,1,0,0,0,0,0,0\n",
}

KUAILIVE_M3 = {
    "live_interaction.csv": "user_id,author_id,live_id,live_play_start_timestamp,live_play_end_timestamp,p_date,"
    "live_source_category,enter_live_action,is_auto_play,is_follow_enter,is_follow_leave,play_duration,like_cnt,comment_cnt,"
    "send_gift_cnt,send_gift_num,follow_author_cnt,cancel_follow_author_cnt,share_cnt,report_live_cnt\n"
    "1,70,900,2025-05-05 00:00:01.500,2025-05-05 00:01:01.500,20250505,feed,click,0,0,1,60000,3,0,2,20,1,0,1,0\n"
    "2,71,901,2025-05-05 00:02:00.000,,20250505,follow,slide,1,1,1,4000,0,1,0,0,0,0,0,0\n",
    "live_show.parquet": pl.DataFrame(
        {"live_id": [902, 900], "user_id": [1, 2], "author_id": [72, 70], "show_timestamp": [MAY_5 + 1500, MAY_5 + 120_000]}
    ).with_columns(pl.from_epoch("show_timestamp", "ms").dt.replace_time_zone("UTC")),
    "live_room_meta.parquet": pl.DataFrame(
        {
            "live_id": [900, 900, 901],
            "author_id": [70, 70, 71],
            "live_name": ["songs", "", None],
            "start_timestamp": [MAY_5 - 3_600_000, MAY_5, MAY_5],
            "end_timestamp": [MAY_5, MAY_5 + 600_000, None],
            "live_duration": [3_600_000, 600_000, None],
        }
    ),
    "author_profile.csv": "author_id,is_photo_author,is_live_author,gender,age_segment,fans_user_num\n70,1,1,F,24-30,0-1k\n",
    "photo_play.parquet": pl.DataFrame(
        {
            "user_id": [1, 1, 2],
            "photo_id": [5000, 5001, 5000],
            "author_id": [70, 75, 70],
            "enter_timestamp": [MAY_5, MAY_5 + 10_000, MAY_5 + 50_000],
            "leave_timestamp": [MAY_5 + 9_000, MAY_5 + 11_000, MAY_5 + 53_000],
            "enter_play_type": ["click", "slide", "auto"],
            "is_complete_play": [1, 0, 0],
            "like_status_type": [0, 0, 0],
            "is_follow_before_play": [0, 0, 0],
            "is_follow_after_play": [0, 0, 0],
        }
    ),
    "photo_tag.csv": "photo_id,first_level_category_name,second_level_category_name,third_level_category_name,"
    "fourth_level_category_name\n5000,music,pop,,\n",
    "photo_meta.parquet": pl.DataFrame(
        {
            "photo_id": [5000, 5001],
            "author_id": [70, 75],
            "duration": [9000, 30_000],
            "display_type": [1, 1],
            "cover_title": ["a song", None],
            "video_texts": ["la la", ""],
        }
    ),
    "live_like.csv": "user_id,live_id,like_timestamp\n1,900,2025-05-05 00:00:03.000\n",
    "live_comment.csv": f'live_stream_id,user_id,author_id,content,comment_ts\n901,2,71,"so, so\n good",{MAY_5 + 121_000}\n',
}  # live_share.csv is not there

_RAND_LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,"
    "duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
)
KUAIRAND = {
    "data/log_standard_4_08_to_4_21_1k.csv": _RAND_LOG
    + "0,500,20220421,400,1650485801301,1,1,0,0,1,0,1,30000,10440,0,0,0,0,1\n"
    + "0,501,20220421,400,1650485840000,0,0,0,0,0,1,0,800,60000,0,0,0,0,1\n",
    "data/log_standard_4_22_to_5_08_1k.csv": _RAND_LOG
    + "17,500,20220422,100,1650560400000,0,0,0,0,0,0,0,0,10440,1500,2500,1,0,4\n",
    "data/log_random_4_22_to_5_08_1k.csv": _RAND_LOG + "17,502,20220422,100,1650560460000,1,0,1,1,0,0,0,,9000,0,0,0,1,4\n",
    "data/user_features_1k.csv": "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,"
    f"register_days,register_days_range,{','.join(f'onehot_feat{number}' for number in range(18))}\n"
    '0,full_active,0,0,1,5,"(0,10]",312,"[100,1k)",0,0,3624,730+' + ",1" * 18 + "\n",
    "data/video_features_basic_1k.csv": "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "server_width,server_height,music_id,music_type,tag\n"
    '500,441,NORMAL,2020-07-08,ShortImport,1,10440.0,720,1280,989206467,4,"12,65"\n'
    "501,442,AD,2022-04-01,ShortCamera,1,,720,1280,,,\n",
    "data/video_features_statistic_1k.csv": "video_id,counts,show_cnt\n500,66,75.2\n",
}

TAOBAO = {
    "UserBehavior.csv": """1,2268318,2520377,pv,1511544070
1,2333346,2520771,pv,1511561733
1,2268318,2520377,cart,1511544100
2,2268318,2520377,fav,1511600000
2,2333346,149192,buy,1511700000
"""
}


CSV = {
    "shows.csv": "user_id,live,time,device\n7,70,1756684800,ios\nu-8,71,1756684801.5,\n7,71,2025-09-01 00:00:02,ios\n",
    "visits/day-1.csv": "user_id\tlive\ttime\tstay\tliked\tfollowed\n7\t70\t1756684803\t2500\ttrue\t0\n",
    "visits/day-2.csv": "user_id\tlive\ttime\tstay\tliked\tfollowed\n7\t71\t1756684804\t\t0\t\nu-8\t71\t1756684805\t9\t1\t1\n",
    "acts.parquet": pl.DataFrame(
        {"user_id": ["7", "7"], "live": [70, 71], "time": [1756684806, 1756684807], "what": ["buy", "x"]}
    ),
    "users.csv": "7,31,Rome\nu-8,,Lima\n",
}
_VISIT = {"user_id": "user_id", "room_id": "live", "at": "time"}
_SECONDS = {"unit": "s", "separator": "\t"}
_TABLES = {
    "impressions": (
        MappedFiles(
            files=("shows.csv*",),
            columns={"user_id": "user_id", "room_id": "live", "shown_at": "time", "context.device": "device"},
            unit="s",
        ),
    ),
    "engagements": (
        MappedFiles(files=("visits/*.csv*",), columns=_VISIT, flags={"like": "liked", "follow": "followed"}, **_SECONDS),
        MappedFiles(
            files=("visits/*.csv*",), columns={**_VISIT, "value": "stay"}, scale={"value": 0.001}, action="enter", **_SECONDS
        ),
        MappedFiles(files=("acts.parquet",), columns={**_VISIT, "action": "what"}, unit="s", actions={"order": "buy"}),
    ),
    "users": (
        MappedFiles(
            files=("users.csv*",),
            names=("id", "age", "city"),
            columns={"user_id": "id", "age": "age", "city": "city"},
            numbers=("age",),
        ),
    ),
}


def _listed(*features: tuple[object, int, str]) -> str:
    return "\x01".join(f"{field}\x02{feature}\x03{weight}" for field, feature, weight in features)


def _sample(number: int, click: int, purchase: int, index: str, *features: tuple[object, int, str]) -> str:
    return f"{number},{click},{purchase},{index},{len(features)},{_listed(*features)}\n"


def _page(index: str, *features: tuple[object, int, str]) -> str:
    return f"{index},{len(features)},{_listed(*features)}\n"


ALI_CCP = {
    "sample_skeleton_train.csv": _sample(
        1, 0, 0, "bacff91692951881", (205, 4535, "1.0"), (206, 77, "1.0"), (508, 9, "2.3"), (301, 5, "1.0")
    )
    + _sample(2, 1, 1, "bacff91692951881", (216, 12, "1.0"), (205, 4536, "1.0"))
    + _sample(3, 1, 0, "2ba5ff5de4dc0c5b", (205, 4535, "1.0"), (207, 8, "1.0")),
    "common_features_train.csv": _page("bacff91692951881", (101, 31, "1.0"), (121, 3, "1.0"), ("109_14", 999, "0.7"))
    + _page("2ba5ff5de4dc0c5b", (101, 32, "1.0"), (129, 4, "1.0")),
    "sample_skeleton_test.csv": _sample(1, 1, 0, "bacff91692951881", (205, 4535, "1.0"), (853, 6, "0.5")),
    "common_features_test.csv": _page("bacff91692951881", (101, 31, "1.0"), (121, 3, "1.0")) + _page("00ff", (101, 40, "1.0")),
}


@dataclass(frozen=True)
class Sample:
    """A data set's hand-made files.

    Attributes:
        config: its source.
        files: by name, CSV as text and Parquet as a table.
        log: the CSV file that tests damage.
        has_header: whether that file has one.
        listed: how the account calls it; as it is called by default.
        user: what its column of users is called.
    """

    config: Callable[..., Any]
    files: Mapping[str, str | pl.DataFrame]
    log: str
    has_header: bool = True
    listed: str = ""
    user: str = "user_id"

    @property
    def in_account(self) -> str:
        return self.listed or self.log


WECHAT = {
    "user_action.csv": """userid,feedid,date_,device,read_comment,comment,like,play,stay,click_avatar,forward,follow,favorite
8,70,1,1,0,0,1,500,5366,0,0,0,0
9,70,1,2,0,0,0,250,500,0,0,0,0
8,71,1,1,1,0,0,4000,900000,1,0,0,0
8,72,2,1,0,0,0,250,,0,1,0,0
8,70,1,1,0,0,0,0,1000,0,0,0,0
""",
    "feed_info.csv": "feedid,authorid,videoplayseconds,description,ocr,asr,bgm_song_id,bgm_singer_id,manual_keyword_list,"
    "machine_keyword_list,manual_tag_list,machine_tag_list,description_char,ocr_char,asr_char\n"
    "70,5,38,104741 122649,5 6,7,11703.0,15506.0,1;2,3,81;269;159,269 0.25;81 0.75;8 1.1e-07,1,2,3\n"
    "71,6,9,,,,,,,,,,,,\n",
}

SAMPLES = {
    "kuailive": Sample(KuaiLiveConfig, KUAILIVE, "click.csv"),
    "kuailive_m3": Sample(KuaiLiveM3Config, KUAILIVE_M3, "live_interaction.csv"),
    "kuairand": Sample(KuaiRandConfig, KUAIRAND, "data/log_standard_4_08_to_4_21_1k.csv"),
    "taobao": Sample(TaobaoConfig, TAOBAO, "UserBehavior.csv", has_header=False),
    "ali_ccp": Sample(AliCcpConfig, ALI_CCP, "sample_skeleton_train.csv", has_header=False),
    "wechat2021": Sample(Wechat2021Config, WECHAT, "user_action.csv", user="userid"),
    "csv": Sample(partial(CsvConfig, tables=_TABLES), CSV, "shows.csv", listed="shows.csv (impressions)"),
}


def write_sample(name: str, folder: Path, **changed: str | pl.DataFrame | None) -> Path:
    """Writes the files of a data set, with some of them (named without their endings) replaced or (None) left out."""
    for file, content in SAMPLES[name].files.items():
        path = folder / file
        content = changed.get(path.name.split(".")[0], content)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif content is not None:
            content.write_parquet(path)
    return folder
